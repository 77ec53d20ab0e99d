#include "fathom/train/base_identity.h"

#include <algorithm>

#include "fathom/checkpoint/safetensors/manifest.h"

namespace fathom {
namespace {

constexpr size_t kTensors = 256, kBytes = 256;

void Update(Hasher& hasher, std::string_view text) { hasher.Update(std::as_bytes(std::span(text))); }

// From the middle: the beginnings of tensors are more alike.
std::span<const std::byte> SomeBytes(ConstView x) {
  const auto size = static_cast<size_t>(x.NumBytes()), count = std::min(size, kBytes);
  return {x.raw() + (size - count) / 2, count};
}

}  // namespace

std::string BaseIdentity(const Checkpoint& base) {
  Hasher hasher;
  Update(hasher, ModelConfigToJson(base.config()).dump(-1, ' ', true, Json::error_handler_t::replace));
  std::vector<std::string> names = base.names();
  std::ranges::sort(names);
  const size_t stride = std::max<size_t>(1, names.size() / kTensors);
  for (size_t i = 0; i < names.size(); ++i) {
    const TensorEntry& entry = *base.Find(names[i]);
    Update(hasher, fmt::format("{} {} {} ", names[i], DTypeName(entry.dtype), entry.shape.ToString()));
    if (i % stride == 0) hasher.Update(SomeBytes(base.Get(names[i]).view()));
  }
  return hasher.Hex();
}

}  // namespace fathom
