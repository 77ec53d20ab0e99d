#include "fathom/checkpoint/safetensors/manifest.h"

#define XXH_INLINE_ALL  // the header alone: nothing to link
#include <xxhash.h>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

constexpr int kFormat = 1;
constexpr const char* kHashName = "xxh3_64";

}  // namespace

struct Hasher::State {
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> xxh3{XXH3_createState()};
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  if (!state_->xxh3) throw std::bad_alloc();
  XXH3_64bits_reset(state_->xxh3.get());
}

Hasher::~Hasher() = default;

void Hasher::Update(std::span<const std::byte> bytes) { XXH3_64bits_update(state_->xxh3.get(), bytes.data(), bytes.size()); }

std::string Hasher::Hex() const { return fmt::format("{:016x}", XXH3_64bits_digest(state_->xxh3.get())); }

Manifest ReadManifest(const std::filesystem::path& path) {
  const Json json = ReadJsonFile(path, 8);
  Manifest manifest;
  try {
    if (json.at("format") != kFormat || json.at("hash") != kHashName) {
      Throw(ErrorCode::kInput, "{}: not a manifest of format {} with {} hashes", path.string(), kFormat, kHashName);
    }
    for (const auto& [name, entry] : json.at("tensors").items()) {
      manifest[name] = {entry.at("dtype").get<std::string>(), entry.at("shape").get<std::string>(), entry.at("hash").get<std::string>()};
    }
  } catch (const nlohmann::json::exception& e) {
    Throw(ErrorCode::kInput, "{}: not a manifest ({})", path.string(), e.what());
  }
  return manifest;
}

void WriteManifest(const std::filesystem::path& path, const Manifest& manifest) {
  Json tensors = Json::object();
  for (const auto& [name, entry] : manifest) tensors[name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"hash", entry.hash}};
  WriteFileAtomically(path, Json{{"format", kFormat}, {"hash", kHashName}, {"tensors", std::move(tensors)}}.dump(1) + "\n");
}

}  // namespace fathom
