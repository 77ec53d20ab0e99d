// What conversions, checks and comparisons read: the tensors of a checkpoint under the hub's names, whatever its format, piece by piece.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "fathom/checkpoint/safetensors/tensor_folder.h"
#include "fathom/config/model_config.h"

namespace fathom {

struct SourceTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::string file;  // for errors, and to keep a hub's shards together
  int64_t unit = 1;  // elements are read in multiples of this

  int64_t NumBytes() const { return shape.NumElements() * DTypeSize(dtype); }
};

// Of a tensor as a matrix: a vector is one row, of more dimensions the first one counts rows.
int64_t ColumnsOf(const Shape& shape);

// f(begin, count) for pieces of n elements in order until it returns false: of at most about piece_bytes, width bytes an element, each but
// the last a multiple of unit. Returns whether f always returned true.
template <class F>
bool ForPieces(int64_t n, int64_t width, int64_t unit, int64_t piece_bytes, const F& f) {
  const int64_t step = std::max<int64_t>(1, piece_bytes / width / unit) * unit;
  for (int64_t begin = 0; begin < n; begin += step) {
    if (!f(begin, std::min(step, n - begin))) return false;
  }
  return true;
}

struct SourceState;

class ConvertSource {
 public:
  ConvertSource();
  virtual ~ConvertSource();

  const std::vector<SourceTensor>& tensors() const { return tensors_; }
  const SourceTensor& tensor(size_t i) const { return tensors_[i]; }
  std::optional<size_t> Find(const std::string& name) const;
  // Elements [begin, begin + count) of tensor i, row-major, in its own dtype; out has exactly their bytes. From any thread. Throws
  // Error(kInput).
  virtual void Read(size_t i, int64_t begin, int64_t count, std::span<std::byte> out) const = 0;
  // False: only planned with, and never read.
  virtual bool has_data() const { return true; }

  // Every file that is read, to see whether one changes meanwhile.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  // Where config.json and the tokenizer lie.
  const std::filesystem::path& companions() const { return companions_; }
  // config.json as it stands; empty if there is none. For an Orbax checkpoint without one: of the flags' model.
  const Json& raw_config() const { return raw_config_; }
  // Throws Error(kInput): none, or not understood.
  const ModelConfig& config() const;
  virtual bool is_orbax() const = 0;
  // The files of a Hugging Face checkpoint; nullptr for Orbax.
  virtual const TensorFolder* folder() const { return nullptr; }
  bool has_fp8() const;
  // The training state beside the weights; nullptr: none, or not asked for.
  const SourceState* state() const { return state_.get(); }
  // "DIR/model-00001-of-00002.safetensors: tensor NAME", for messages.
  std::string Where(size_t i) const;

 protected:
  void Add(SourceTensor tensor);
  std::vector<std::filesystem::path> files_;
  std::filesystem::path companions_;
  Json raw_config_;
  mutable std::optional<ModelConfig> config_;
  std::vector<std::string> ignore_config_keys_;
  std::string config_path_;
  std::unique_ptr<SourceState> state_;

 private:
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// What a run resumes from besides the weights.
struct SourceState {
  int64_t step = 0;              // the 0-based step that is complete
  Json values = Json::object();  // what the run has saved in state.json: "optimizer_steps", its position in the data
  // The optimizer's moments "mu" and "nu" under the parameters' names; a parameter that is not trained has none. None at all with SGD.
  std::map<std::string, std::unique_ptr<ConvertSource>> slots;

  int64_t optimizer_steps() const;  // updates applied; throws Error(kInput) if values do not say
  Json OwnValues() const;           // values without the numbers that every training state has
};

struct SourceOptions {
  int64_t cache_bytes = 256 << 20;     // for decoded chunks of an Orbax checkpoint
  std::filesystem::path scratch_dir;   // for chunks that are larger; of the output's file system
  std::function<ModelConfig()> model;  // the flags' model, for an Orbax checkpoint without config.json; may be empty
  // If given, called for everything in which an Orbax checkpoint differs from its config: arrays missing (left out then), extra, wrong.
  // Else the first array that is missing or wrong is an error.
  std::function<void(const std::string&)> report;
  std::vector<std::string> ignore_config_keys;  // as OpenOptions has them
  bool training_state = false;                  // open it too, if there is one
};

// Recognises what lies at path. Throws Error(kInput): neither a Hugging Face folder nor an Orbax checkpoint; broken; an array missing or
// of another shape than the model's (unless reported); a link that leads out of the checkpoint's folder.
std::unique_ptr<ConvertSource> OpenConvertSource(const std::filesystem::path& path, const SourceOptions& options);

}  // namespace fathom
