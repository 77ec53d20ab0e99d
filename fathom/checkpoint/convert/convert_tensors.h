// Which tensors a conversion gives out in which dtype, and their elements in it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/checkpoint/hub/peft.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/kernels/quant/fp8_cast.h"

namespace fathom {

enum class TargetDType { kKeep, kF32, kBF16, kF16, kF8 };

struct DTypeOptions {
  TargetDType target = TargetDType::kKeep;
  ScaleFormat scale_format = ScaleFormat::kF32;  // of kF8
  bool expand_fp8 = false;                       // kKeep makes FP8 BF16: the output format has no block scales
  std::shared_ptr<const PeftAdapter> adapter;    // merged into the matrices that it stands beside; null: none
};

// One tensor of the output and where it comes from.
struct TensorTask {
  const ConvertSource* from = nullptr;
  size_t source = 0;  // its number there
  TensorInfo info;
  std::optional<size_t> scale;           // the source's scales, if FP8 is expanded
  bool quantize = false;                 // info is F8_E4M3, made here; its scales follow as a tensor of their own
  std::shared_ptr<const LowRank> merge;  // W + factor B A is given out, summed in double and rounded once
  int64_t unit = 1;  // elements are converted in multiples of this, but the last: rows of FP8, rows of blocks if quantised

  const SourceTensor& Stored() const { return from->tensor(source); }
  TensorInfo ScaleInfo() const { return {info.name + std::string(kScaleSuffix), DType::kF32, ScaleShape(info.shape)}; }
};

// Tasks in the source's order. Rules: kBF16 expands FP8 and leaves the other tensors of an FP8 checkpoint as they are; elsewhere it rounds
// floats to BF16 but for those that the hub keeps in F32 (router bias, the indexer's k_norm). kF8 quantises the matrices that the hub has
// in FP8. Throws Error(kInput): FP8 without scales or with wrong ones, scales without a matrix. Error(kUsage): an adapter that would have
// to be merged into codes that are kept.
std::vector<TensorTask> PlanTensors(const ConvertSource& source, const DTypeOptions& options);

// A buffer's first bytes; it grows when it must.
std::span<std::byte> Scratch(std::vector<std::byte>& buffer, int64_t bytes);

// Converts pieces; holds scratch, so one per thread.
class PieceConverter {
 public:
  // Elements [begin, begin + count) of a task that does not quantise, into out (exactly their bytes). Throws Error(kInput).
  void Read(const TensorTask& task, int64_t begin, int64_t count, std::span<std::byte> out);
  // Codes and scales of rows that begin at a block. Returns how many elements they do not give back (QuantizeFp8).
  int64_t Quantize(const TensorTask& task, int64_t begin, int64_t count, ScaleFormat format, std::span<std::byte> codes,
                   std::span<std::byte> scales);

 private:
  void ReadAs(const TensorTask& task, DType dtype, int64_t begin, int64_t count, std::span<std::byte> out);
  // Block scales [blocks, columns] of the rows of blocks that begin at first_row's.
  ConstView Scales(const TensorTask& task, int64_t first_row, int64_t rows);
  void Dequantize(const TensorTask& task, ConstView codes, int64_t first_row, View out);
  void Merge(const TensorTask& task, ConstView stored, int64_t first_row, View out);
  std::vector<std::byte> stored_, scales_, values_;
};

}  // namespace fathom
