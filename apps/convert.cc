// fathom convert: checkpoint to checkpoint.
#include "apps/convert.h"

#include <fmt/format.h>

#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/machine/limits.h"

namespace fathom {
namespace {

TargetDType ParseTarget(const std::string& name) {
  if (name == "float32") return TargetDType::kF32;
  if (name == "bfloat16") return TargetDType::kBF16;
  if (name == "float16") return TargetDType::kF16;
  return name == "float8" ? TargetDType::kF8 : TargetDType::kKeep;
}

std::string OnlyInput(const RunConfig& config) {
  const auto& inputs = config.Strings("input");
  if (inputs.size() > 1) Throw(ErrorCode::kUsage, "input: one checkpoint is needed, {} were given", inputs.size());
  return inputs.empty() ? "" : inputs[0];
}

// MaxText's deepseek_dequantize, and deepseek_fp8_to_bf16 before it, write FP8 out as BF16. The first word of the pair that was given; "".
std::string DequantizeInput(const RunConfig& config) {
  for (const char* key : {"input_fp8_hf_path", "input_path"}) {
    if (!config.String(key).empty()) return key;
  }
  return "";
}

// Our own spelling, and those of MaxText's scripts.
void ReadPaths(const RunConfig& config, ConvertOptions& options) {
  std::string dtype = config.Given("dtype") ? config.String("dtype") : "", to = config.String("to");
  if (const std::string input = DequantizeInput(config); !input.empty()) {
    options.input = config.String(input);
    options.output = config.String(input == "input_path" ? "output_path" : "output_bf16_hf_path");
    if (dtype.empty()) dtype = "bfloat16";
  } else if (!config.String("hf_model_path").empty()) {
    options.input = config.String("hf_model_path");
    options.output = config.String("output").empty() ? config.String("base_output_directory") : config.String("output");
    if (to.empty()) to = "orbax";
  } else {
    options.input = OnlyInput(config);
    options.output = config.String("output").empty() ? config.String("base_output_directory") : config.String("output");
  }
  if (!config.String("save_dtype").empty()) dtype = config.String("save_dtype");
  options.to = to == "orbax" ? CheckpointFormat::kOrbax : CheckpointFormat::kHuggingFace;
  options.dtype.target = ParseTarget(dtype);
}

}  // namespace

ConvertOptions ReadConvertOptions(const RunConfig& config) {
  ConvertOptions options;
  ReadPaths(config, options);
  if (options.to == CheckpointFormat::kOrbax && options.dtype.target == TargetDType::kF8)
    Throw(ErrorCode::kUsage, "dtype=float8: MaxText's checkpoints hold no FP8; take bfloat16 or float32");
  if (config.String("scale_fmt") == "ue8m0") options.dtype.scale_format = ScaleFormat::kUe8m0;
  options.full_state = config.Bool("full_state");
  options.adapter = config.String("hf_lora_adapter_path");
  options.scan_layers = config.Bool("scan_layers");
  options.ocdbt = config.Bool("checkpoint_storage_use_ocdbt");
  options.zarr3 = config.Bool("checkpoint_storage_use_zarr3");
  options.zstd_level = static_cast<int>(config.Int("zstd_level"));
  options.target_file_size = config.Int("checkpoint_storage_target_data_file_size_bytes");
  if (config.Given("max_shard_size")) options.max_shard_size = config.Int("max_shard_size");
  options.memory_limit = config.Int("memory_limit");
  options.overwrite = config.Bool("overwrite");
  options.show_progress = config.String("log_level") != "error" && config.String("log_level") != "off";
  options.model = DescribedModel(config);
  options.ignore_config_keys = config.Strings("ignore_config_keys");
  if (config.Given("model_name"))
    options.check_model = [&config](const ModelConfig& model, const std::string& where) { CheckModelName(config, model, where); };
  return options;
}

std::vector<std::string> ConvertFlags() {
  return WithModelFlags({"input",
                         "hf_lora_adapter_path",
                         "ignore_config_keys",
                         "output",
                         "to",
                         "dtype",
                         "scale_fmt",
                         "full_state",
                         "scan_layers",
                         "max_shard_size",
                         "memory_limit",
                         "overwrite",
                         "checkpoint_storage_use_ocdbt",
                         "checkpoint_storage_use_zarr3",
                         "zstd_level",
                         "checkpoint_storage_target_data_file_size_bytes",
                         "input_fp8_hf_path",
                         "output_bf16_hf_path",
                         "input_path",
                         "output_path",
                         "hf_model_path",
                         "base_output_directory",
                         "save_dtype"});
}

namespace {

int RunConvertRank(const RunConfig& config, const Mesh& mesh) {
  ConvertOptions options = ReadConvertOptions(config);
  options.ranks = {mesh.world().rank(), mesh.world().size(),
                   [world = mesh.world()](const std::string& mine) { return AllGatherText(world, mine); }};
  if (options.input.empty()) Throw(ErrorCode::kUsage, "input: none given; name the checkpoint to convert");
  if (options.output.empty()) Throw(ErrorCode::kUsage, "output: none given; name the folder to write");
  const ConvertResult result = Convert(options);
  if (!mesh.is_first()) return 0;
  fmt::print("{}: {} tensors, {} in {} ({}/s)\n", result.output.string(), result.tensors, FormatBytes(static_cast<double>(result.bytes)),
             FormatSeconds(result.seconds), FormatBytes(static_cast<double>(result.bytes) / std::max(result.seconds, 1e-9)));
  if (result.step) fmt::print("with the training state of step {} (full_state=false leaves it out)\n", *result.step);
  if (result.units_resumed > 0) fmt::print("{} of {} files were there from an earlier run\n", result.units_resumed, result.units);
  if (options.dtype.target == TargetDType::kF8) fmt::print("{} elements differ from the input when read back\n", result.not_reproduced);
  if (!config.String("json").empty()) {
    const Json json = {{"output", result.output.string()},
                       {"tensors", result.tensors},
                       {"bytes", result.bytes},
                       {"seconds", result.seconds},
                       {"files", result.units},
                       {"files_resumed", result.units_resumed},
                       {"training_step", result.step ? Json(*result.step) : Json()},
                       {"elements_not_reproduced", result.not_reproduced},
                       {"peak_rss_bytes", PeakResidentBytes()}};
    WriteOutput(config.String("json"), JsonText(json, 2));
  }
  return 0;
}

int RunConvert(const RunConfig& config) { return RunConvertRank(config, {}); }

}  // namespace

Command ConvertCommand() {
  return {.name = "convert",
          .summary = "checkpoint to checkpoint: FP8, BF16, F32, Hugging Face, Orbax",
          .flags = ConvertFlags(),
          .run = RunConvert,
          .run_rank = RunConvertRank};
}

}  // namespace fathom
