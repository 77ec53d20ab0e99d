#include "fathom/base/error.h"
#include "fathom/eval/golden.h"

namespace fathom {

GoldenCase::GoldenCase(Checkpoint opened)
    : dir(opened.dir()),
      checkpoint(std::move(opened)),
      expected(SafetensorsFile::Open(dir / "golden.safetensors")),
      info(ReadJsonFile(dir / "golden.json")),
      prefix(checkpoint.config().fp8 ? "exact." : "") {}

Tensor GoldenCase::Expected(const std::string& name) const {
  const TensorEntry* entry = expected->Find(name);
  if (entry == nullptr) Throw(ErrorCode::kInput, "{}: no array {}", expected->path().string(), name);
  return expected->Get(*entry);
}

std::vector<int32_t> GoldenCase::Ids(const std::string& name) const {
  const Tensor t = Expected(name);
  if (t.dtype() != DType::kI64)
    Throw(ErrorCode::kInput, "{}: {} is {}, expected I64", expected->path().string(), name, DTypeName(t.dtype()));
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < t.NumElements(); ++i) {
    const int64_t id = t.data<int64_t>()[i];
    if (id < 0 || id >= checkpoint.config().vocab_size)
      Throw(ErrorCode::kInput, "{}: {} holds id {}, outside the vocabulary", dir.string(), name, id);
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace fathom
