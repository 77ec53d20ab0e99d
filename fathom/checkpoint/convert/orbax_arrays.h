// The arrays of an Orbax output: which tensors lie in them, and the elements of their chunks.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "fathom/checkpoint/convert/convert_tensors.h"
#include "fathom/checkpoint/orbax/maxtext_names.h"
#include "fathom/checkpoint/orbax/zarr_metadata.h"

namespace fathom {

// Tensors of one source by name: the weights, or a slot of the optimizer.
class TaskTable {
 public:
  // config: the model whose tensors they are. zeros: a tensor that the source lacks holds zeros (the moments of what is not trained).
  TaskTable(const ConvertSource& source, const DTypeOptions& dtype, const ModelConfig& config, bool zeros);
  const std::vector<TensorTask>& tasks() const { return tasks_; }  // in the source's order
  // `from` is nullptr for zeros. Throws Error(kInput): missing, or another shape than the model's.
  TensorTask Get(const std::string& name) const;

 private:
  const ConvertSource& source_;
  bool zeros_;
  std::vector<TensorTask> tasks_;
  std::unordered_map<std::string, size_t> by_name_;
  std::unordered_map<std::string, Shape> shapes_;
};

struct OrbaxArray {
  std::string name;  // in the store
  MaxTextArray layout;
  ZarrArray zarr;
  std::vector<TensorTask> tasks;  // as layout.tensors, all of the array's dtype
};

// Level of zstd that codes repeats alone: weights hold none, so they pass at the speed of a copy. Levels above 0 code the values'
// frequencies, too: a fifth less for BF16 weights, at half the speed on two cores.
inline constexpr int kRepeatsOnly = -1;

struct OrbaxArrayOptions {
  bool zarr3 = true;
  int zstd_level = kRepeatsOnly;
  int64_t max_chunk_bytes = 32 << 20;   // of a chunk, uncompressed
  int64_t whole_array_bytes = 4 << 20;  // an array up to this size is one chunk
};

// The array `prefix + layout.name`. Throws as TaskTable::Get.
OrbaxArray PlanOrbaxArray(const MaxTextArray& layout, const std::string& prefix, const TaskTable& table, const OrbaxArrayOptions& options);

// Gathers chunks; holds memory, so one per thread.
class ChunkReader {
 public:
  // All elements of a chunk, valid until the next call. Throws Error(kInput).
  std::span<const std::byte> Read(const OrbaxArray& array, const Shape& index);

 private:
  void ReadRows(const TensorTask& task, int64_t row, int64_t rows);
  PieceConverter converter_;
  std::vector<std::byte> chunk_, slab_;
};

}  // namespace fathom
