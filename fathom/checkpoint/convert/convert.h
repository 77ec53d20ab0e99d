// fathom convert: checkpoint to checkpoint, in bounded memory, resumable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "fathom/checkpoint/convert/convert_output.h"

namespace fathom {

enum class CheckpointFormat { kHuggingFace, kOrbax };

// The others of several processes that divide the files among themselves.
struct ConvertRanks {
  int64_t rank = 0, count = 1;
  // What each of them says, in their order; called by all.
  std::function<std::vector<std::string>(const std::string&)> gather;
};

struct ConvertOptions {
  std::filesystem::path input, output;
  CheckpointFormat to = CheckpointFormat::kHuggingFace;
  DTypeOptions dtype;
  std::filesystem::path adapter;                        // a PEFT folder that is merged; empty: none
  bool full_state = true;                               // carry a training state (step, moments) that lies with the weights; never into FP8
  bool scan_layers = true, ocdbt = true, zarr3 = true;  // of Orbax
  int zstd_level = kRepeatsOnly;                        // of Orbax
  int64_t max_shard_size = 0;                           // of Hugging Face; 0: as the input, else 5 GB
  int64_t target_file_size = int64_t{2} << 30;          // of Orbax's data files
  int64_t memory_limit = int64_t{1} << 30;              // ceiling of resident memory
  std::vector<std::string> ignore_config_keys;          // as OpenOptions has them
  bool overwrite = false;
  bool show_progress = false;  // on stderr
  ConvertRanks ranks = {};
  std::function<ModelConfig()> model;  // the flags' model, for an Orbax checkpoint without config.json
  std::function<void(const ModelConfig&, const std::string& where)>
      check_model;  // called with the input's own config.json, if it is needed
};

struct ConvertResult {
  int64_t tensors = 0, bytes = 0;  // of the input's tensors; converted bytes as they are in the output, before compression
  int64_t units = 0, units_resumed = 0;
  int64_t not_reproduced = 0;   // elements that FP8 does not give back
  std::optional<int64_t> step;  // of the training state that was carried
  double seconds = 0;
  std::filesystem::path output;  // what was written: the folder, or <output>/0/items
};

// Works in a hidden folder beside the output and renames it when all is there. A killed or failed run is continued by the next one with the
// same input and options; the bytes are those of a run without a break. Throws Error: kInput (which file, which tensor; an input that
// changes meanwhile; an output that cannot be written, or that another run is writing), kUsage (the output exists, or lies in the input),
// kResource (disk full and how much is missing).
ConvertResult Convert(const ConvertOptions& options);

// What a conversion would read and write, without doing it; the same errors. Without an input: of the hub's checkpoint of options.model.
struct ConvertPlan {
  int64_t input_bytes = 0, output_bytes = 0, tensors = 0, files = 0;
};
ConvertPlan PlanConvert(const ConvertOptions& options);

}  // namespace fathom
