// A training state through fathom convert: step, counts, moments and the run's own values, there and back.
#include <gmock/gmock.h>

#include "fathom/base/error.h"
#include "fathom/checkpoint/convert/test_convert.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/orbax/orbax.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using enum CheckpointFormat;
using testing::HasSubstr;

constexpr int64_t kStep = 6;

bool IsMoment(const ParamSpec& tensor) { return !LearnsByCounting(tensor.role) && !tensor.is_copy(); }

class ConvertStateTest : public ConvertTest {
 protected:
  ConvertStateTest() { config_.update({{"num_hidden_layers", 4}, {"first_k_dense_replace", 2}}); }

  // Writes <folder>/6 as training does; mu is BF16. Moments whose name `skip` occurs in are left out, as of parameters that are not
  // trained.
  void Train(const std::string& skip = "") {
    std::vector<SavedTensor> params;
    TrainState state{.step = kStep, .values = {{kOptimizerSteps, 5}, {"data", {{"kind", "text"}, {"row", 3}}}}, .slots = {}};
    for (const ParamSpec& tensor : ModelSpec(ParseModelConfig(config_, "test"))) {
      if (tensor.is_copy()) continue;
      params.push_back({tensor.name, Keep(RandomTensor(DType::kF32, tensor.shape, HashName(tensor.name)))});
      if (!IsMoment(tensor) || (!skip.empty() && tensor.name.find(skip) != skip.npos)) continue;
      state.slots["mu"].push_back({tensor.name, Keep(RandomTensor(DType::kBF16, tensor.shape, HashName(tensor.name + "m")))});
      state.slots["nu"].push_back({tensor.name, Keep(RandomTensor(DType::kF32, tensor.shape, HashName(tensor.name + "v")))});
    }
    SaveTrainCheckpoint(folder_.path(), config_, params, state, {});
  }
  ConvertResult Run(CheckpointFormat to, const std::string& input, const std::string& output, const auto& change) {
    ConvertOptions options = To(to, input, output);
    change(options);
    return Convert(options);
  }
  ConvertResult Run(CheckpointFormat to, const std::string& input, const std::string& output) {
    return Run(to, input, output, [](ConvertOptions&) {});
  }
  OrbaxCheckpoint Orbax(const std::string& name) const {
    return {*FindOrbaxItems(Path(name)), std::make_shared<ChunkCache>(1 << 20, folder_.path())};
  }
  void ExpectSameFile(const std::string& a, const std::string& b) const {
    EXPECT_EQ(ReadTextFile(Path(a)), ReadTextFile(Path(b))) << a << " and " << b;
  }
  void ExpectSameState(const std::string& folder) const {
    for (const char* file : {"state.json", "mu.safetensors", "nu.safetensors"})
      ExpectSameFile("6/train_state/" + std::string(file), folder + "/train_state/" + file);
  }

  Json config_ = TinyConfig();

 private:
  ConstView Keep(Tensor tensor) {
    kept_.push_back(std::move(tensor));
    return kept_.back().view();
  }
  std::vector<Tensor> kept_;
};

TEST_F(ConvertStateTest, ThroughOrbaxAndBack) {
  Train();
  for (int variant = 0; variant < 8; ++variant) {
    const std::string orbax = fmt::format("orbax{}", variant), back = fmt::format("back{}", variant);
    SCOPED_TRACE(orbax);
    const ConvertResult there = Run(kOrbax, "6", orbax, [&](ConvertOptions& options) {
      options.scan_layers = variant % 2 == 0;
      options.ocdbt = variant / 2 % 2 == 0;
      options.zarr3 = variant / 4 == 0;
    });
    EXPECT_EQ(there.step, kStep);
    EXPECT_EQ(Run(kHuggingFace, orbax, back).step, kStep);
    ExpectSameFile("6/model.safetensors", back + "/model.safetensors");
    ExpectSameState(back);
  }
}

TEST_F(ConvertStateTest, FromLayoutToLayout) {
  Train();
  Run(kOrbax, "6", "scanned");
  Run(kOrbax, "scanned", "unscanned", [](ConvertOptions& options) { options.scan_layers = false; });
  Run(kHuggingFace, "unscanned", "back");
  ExpectSameState("back");
  Run(kHuggingFace, "6", "copy", [](ConvertOptions& options) { options.max_shard_size = 4000; });
  ExpectSameState("copy");
}

// The weights change, the moments do not.
TEST_F(ConvertStateTest, DTypeIsOfTheWeights) {
  Train();
  const auto to_bf16 = [](ConvertOptions& options) { options.dtype.target = TargetDType::kBF16; };
  Run(kOrbax, "6", "orbax", to_bf16);
  Run(kHuggingFace, "orbax", "back");
  EXPECT_EQ(TensorFolder::Open(Path("back")).Get("model.norm.weight").dtype(), DType::kBF16);
  ExpectSameState("back");
}

TEST_F(ConvertStateTest, IsLeftOutOnRequestAndInFp8) {
  Train();
  const auto leave = [](ConvertOptions& options) { options.full_state = false; };
  EXPECT_EQ(Run(kOrbax, "6", "params", leave).step, std::nullopt);
  EXPECT_TRUE(Orbax("params").optimizer().empty());
  Run(kOrbax, "6", "full");
  Run(kHuggingFace, "full", "hf", leave);
  EXPECT_FALSE(HasTrainState(Path("hf")));
  Run(kHuggingFace, "6", "fp8", [](ConvertOptions& options) { options.dtype.target = TargetDType::kF8; });
  EXPECT_FALSE(HasTrainState(Path("fp8")));
}

TEST_F(ConvertStateTest, WhatIsNotTrainedHasZeros) {
  Train("model.layers.2.");
  Run(kOrbax, "6", "orbax");
  Run(kHuggingFace, "orbax", "back");
  const SavedTrainState before = SavedTrainState::Open(Path("6")), after = SavedTrainState::Open(Path("back"));
  for (const ParamSpec& tensor : ModelSpec(ParseModelConfig(config_, "test"))) {
    if (!IsMoment(tensor)) continue;
    const Tensor nu = after.Get("nu", tensor.name, DType::kF32, tensor.shape);
    const Tensor want =
        before.Has("nu", tensor.name) ? before.Get("nu", tensor.name, DType::kF32, tensor.shape) : Tensor(DType::kF32, tensor.shape);
    EXPECT_EQ(std::memcmp(nu.view().raw(), want.view().raw(), static_cast<size_t>(nu.NumBytes())), 0) << tensor.name;
  }
}

// Every leaf that MaxText itself wrote, with its dtype and shape.
TEST_F(ConvertStateTest, TheTreeIsMaxTexts) {
  config_.update({{"vocab_size", 96},
                  {"hidden_size", 32},
                  {"intermediate_size", 48},
                  {"num_hidden_layers", 3},
                  {"num_attention_heads", 2},
                  {"q_lora_rank", 20},
                  {"kv_lora_rank", 12},
                  {"qk_nope_head_dim", 16},
                  {"qk_rope_head_dim", 8},
                  {"v_head_dim", 12},
                  {"moe_intermediate_size", 16},
                  {"first_k_dense_replace", 1}});
  Train();
  const Json leaves = ReadJsonFile(fs::path(FATHOM_TEST_DATA) / "orbax/v3-full-leaves.json");
  for (const bool scan : {true, false}) {
    const std::string name = scan ? "scanned" : "unscanned";
    Run(kOrbax, "6", name, [&](ConvertOptions& options) { options.scan_layers = scan; });
    const OrbaxCheckpoint orbax = Orbax(name);
    const std::string metadata = ReadTextFile(orbax.items() / "_METADATA");
    for (const auto& [leaf, type] : leaves[name].items()) {
      if (type == "None") {
        EXPECT_THAT(metadata, HasSubstr("\"('opt_state', '1')\":"));
        continue;
      }
      ASSERT_TRUE(orbax.Has(leaf)) << leaf;
      const ZarrArray array = orbax.Open(leaf).array();
      const bool mu = leaf.starts_with("opt_state.0.mu.");  // BF16 here, F32 there
      EXPECT_EQ(fmt::format("{} {}", mu ? "F32" : DTypeName(array.dtype), array.shape.ToString()), type.get<std::string>()) << leaf;
    }
    EXPECT_EQ(orbax.ReadNumber("step"), kStep + 1);
    EXPECT_EQ(orbax.ReadNumber("opt_state.0.count"), 5);
    EXPECT_EQ(orbax.ReadNumber("opt_state.2.count"), kStep + 1);
  }
}

std::string ErrorOf(const auto& run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput) << e.what();
    return e.what();
  }
  return "";
}

TEST_F(ConvertStateTest, ADamagedStateIsNamed) {
  Train();
  const auto error = [&](const std::string& input) { return ErrorOf([&] { Run(kOrbax, input, "out"); }); };
  fs::rename(Path("6/train_state/nu.safetensors"), Path("nu"));
  EXPECT_THAT(error("6"), HasSubstr("expected are mu.safetensors and nu.safetensors"));
  fs::rename(Path("nu"), Path("6/train_state/nu.safetensors"));
  Run(kOrbax, "6", "plain", [](ConvertOptions& options) { options.ocdbt = false; });
  for (const auto& [array, value] : {std::pair("step", 0), std::pair("step", -7), std::pair("opt_state.0.count", -1)}) {
    const fs::path file = Path("plain/0/items") / array / "c";
    const std::string kept = ReadTextFile(file);
    ASSERT_EQ(kept.size(), sizeof(int32_t));
    const auto number = static_cast<int32_t>(value);
    WriteFileAtomically(file, {reinterpret_cast<const char*>(&number), sizeof number});
    EXPECT_THAT(error("plain"), HasSubstr(fmt::format("array {} is {}, allowed is", array, value)));
    WriteFileAtomically(file, kept);
  }
  fs::remove_all(Path("plain/0/items/opt_state.0.nu.params.decoder.decoder_norm.scale"));
  EXPECT_THAT(error("plain"), HasSubstr("array opt_state.0.nu.params.decoder.decoder_norm.scale is missing"));
  Json values = ReadJsonFile(Path("6/train_state/state.json"));
  values.erase(kOptimizerSteps);
  WriteFileAtomically(Path("6/train_state/state.json"), values.dump());
  EXPECT_THAT(error("6"), HasSubstr(kOptimizerSteps));
  EXPECT_FALSE(fs::exists(Path("out")));
}

}  // namespace
}  // namespace fathom
