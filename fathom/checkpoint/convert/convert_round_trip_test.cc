// Every direction of fathom convert over random models of all families, with odd sizes: there and back, and by different ways to the same.
#include "fathom/checkpoint/convert/test_convert.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

// Numbers that follow from a seed.
class Draws {
 public:
  explicit Draws(uint64_t seed) : rng_(seed, 77) {}
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(rng_.Below(next_++, static_cast<uint64_t>(high - low + 1)));
  }

 private:
  CounterRng rng_;
  uint64_t next_ = 0;
};

// A config of any family with odd sizes.
Json RandomConfig(uint64_t seed) {
  Draws draw(seed);
  const char* families[] = {"deepseek_v2", "deepseek_v3", "deepseek_v32"};
  Json c = TinyConfig(families[seed % 3]);
  const int64_t groups = draw.Between(1, 2);
  c.update({{"vocab_size", draw.Between(5, 40)},
            {"hidden_size", draw.Between(3, 21)},
            {"intermediate_size", draw.Between(1, 19)},
            {"num_hidden_layers", draw.Between(1, 4)},
            {"num_attention_heads", draw.Between(1, 3)},
            {"kv_lora_rank", draw.Between(1, 9)},
            {"qk_nope_head_dim", draw.Between(1, 7)},
            {"qk_rope_head_dim", 2 * draw.Between(1, 3)},
            {"v_head_dim", draw.Between(1, 7)},
            {"n_routed_experts", groups * draw.Between(2, 4)},
            {"moe_intermediate_size", draw.Between(1, 9)},
            {"n_group", groups},
            {"topk_group", 1},
            {"num_experts_per_tok", 1},
            {"n_shared_experts", draw.Between(1, 2)}});
  c["first_k_dense_replace"] = draw.Between(0, c["num_hidden_layers"].get<int64_t>());
  if (seed % 3 != 0 || seed % 2 == 0) c["q_lora_rank"] = draw.Between(1, 9);
  if (seed % 3 != 0) c["num_nextn_predict_layers"] = draw.Between(0, 2);
  if (seed % 3 == 2) c.update({{"index_n_heads", draw.Between(1, 3)}, {"index_head_dim", draw.Between(4, 8)}, {"qk_rope_head_dim", 2}});
  return c;
}

TEST_F(ConvertTest, HuggingFaceToOrbaxAndBack) {
  for (uint64_t seed = 0; seed < 18; ++seed) {
    const Json config = RandomConfig(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, config.dump()));
    const auto tensors = TensorsOf(config);
    const std::string name = std::to_string(seed);
    WriteCheckpoint(Path(name), config, tensors, 1 + seed % 3);
    ConvertOptions there = To(CheckpointFormat::kOrbax, name, name + "-orbax");
    there.scan_layers = seed % 2 == 0;
    there.ocdbt = seed % 9 != 4;
    there.zarr3 = seed % 4 != 3;
    there.zstd_level = static_cast<int>(seed % 5) - 2;
    const ConvertResult result = Convert(there);
    EXPECT_TRUE(fs::exists(Path(name + "-orbax") / "0/items/_METADATA"));
    EXPECT_EQ(result.output, Path(name + "-orbax") / "0/items");
    Convert(To(CheckpointFormat::kHuggingFace, name + "-orbax", name + "-back"));
    ExpectSameTensors(Path(name + "-back"), tensors);
    EXPECT_NO_THROW(ValidateAgainstConfig(Checkpoint::Open(Path(name + "-back"))));
  }
}

TEST_F(ConvertTest, ScannedToUnscannedAndBack) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const Json config = RandomConfig(seed);
    SCOPED_TRACE(config.dump());
    const auto tensors = TensorsOf(config);
    const std::string name = std::to_string(seed);
    WriteCheckpoint(Path(name), config, tensors);
    std::string last = name;
    for (const bool scan : {true, false, true}) {
      const std::string next = last + (scan ? "s" : "u");
      ConvertOptions options = To(CheckpointFormat::kOrbax, last, next);
      options.scan_layers = scan;
      Convert(options);
      last = next;
    }
    Convert(To(CheckpointFormat::kHuggingFace, last + "/0", name + "-back"));
    ExpectSameTensors(Path(name + "-back"), tensors);
  }
}

// Chunks of a few rows, data files of a few chunks: what a 671B model meets, in small.
TEST_F(ConvertTest, ManyChunksAndDataFiles) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const Json config = RandomConfig(seed);
    SCOPED_TRACE(config.dump());
    const auto tensors = TensorsOf(config);
    const std::string name = std::to_string(seed);
    WriteCheckpoint(Path(name), config, tensors);
    const auto source = OpenConvertSource(Path(name), {});
    OrbaxOutputOptions options;
    options.scan_layers = seed % 2 == 0;
    options.arrays.max_chunk_bytes = 96;
    options.arrays.whole_array_bytes = 48;
    options.target_file_size = 500;
    const auto output = MakeOrbaxOutput(*source, options);
    EXPECT_GT(output->units().size(), 3u);
    std::map<std::string, Json> records;
    for (size_t u = 0; u < output->units().size(); ++u) {
      records[output->units()[u].name] = output->WriteUnit(u, Path(name + "-orbax"), [](int64_t) {});
      EXPECT_TRUE(output->StillThere(u, Path(name + "-orbax"), records[output->units()[u].name]));
    }
    output->Finish(Path(name + "-orbax"), records);
    Convert(To(CheckpointFormat::kHuggingFace, name + "-orbax", name + "-back"));
    ExpectSameTensors(Path(name + "-back"), tensors);
  }
}

// Sizes around the blocks of 128, random scales.
struct Fp8Model {
  Json config;
  std::vector<TestTensor> tensors;

  explicit Fp8Model(uint64_t seed) : config(WithFp8(RandomConfig(seed))) {
    Draws draw(seed + 1000);
    config.update({{"hidden_size", draw.Between(100, 270)},
                   {"intermediate_size", draw.Between(1, 300)},
                   {"moe_intermediate_size", draw.Between(1, 140)},
                   {"num_attention_heads", draw.Between(1, 30)}});
    tensors = TensorsOf(config);
    for (TestTensor& t : tensors) {
      if (!t.name.ends_with(kScaleSuffix)) continue;
      for (int64_t i = 0; i < t.tensor.NumElements(); ++i)
        t.tensor.mutable_data<float>()[i] = 1e-6f * static_cast<float>(draw.Between(100, 2000));
    }
  }
};

std::vector<TestTensor> Read(const fs::path& dir) {
  const TensorFolder folder = TensorFolder::Open(dir);
  std::vector<TestTensor> tensors;
  for (const std::string& name : folder.names()) tensors.push_back({name, folder.Get(name)});
  return tensors;
}

class RoundTripTest : public ConvertTest {
 protected:
  ConvertResult Run(CheckpointFormat to, TargetDType dtype, const std::string& input, const std::string& output, bool scan = true) const {
    ConvertOptions options = To(to, input, output);
    options.dtype.target = dtype;
    options.scan_layers = scan;
    return Convert(options);
  }
};

// FP8 made of BF16 that came from FP8 reads back as the same BF16 (all of it if the count says so), and a second round changes nothing.
// Through Orbax, scanned or not, everything is the same again.
TEST_F(RoundTripTest, Fp8Bf16OrbaxAndBack) {
  using enum CheckpointFormat;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const Fp8Model model(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, model.config.dump()));
    const std::string name = std::to_string(seed);
    WriteCheckpoint(Path(name), model.config, model.tensors, 1 + seed % 3);
    Run(kHuggingFace, TargetDType::kBF16, name, name + "-bf16");
    const auto bf16 = Read(Path(name + "-bf16"));
    const ConvertResult first = Run(kHuggingFace, TargetDType::kF8, name + "-bf16", name + "-fp8");
    Run(kHuggingFace, TargetDType::kBF16, name + "-fp8", name + "-bf16-again");
    if (first.not_reproduced == 0) ExpectSameTensors(Path(name + "-bf16-again"), bf16);
    const ConvertResult second = Run(kHuggingFace, TargetDType::kF8, name + "-bf16-again", name + "-fp8-again");
    EXPECT_EQ(second.not_reproduced, 0);
    ExpectSameTensors(Path(name + "-fp8-again"), Read(Path(name + "-fp8")));
    for (const bool scan : {true, false}) {
      const std::string orbax = name + (scan ? "-scanned" : "-unscanned");
      Run(kOrbax, TargetDType::kKeep, name, orbax, scan);
      Run(kHuggingFace, TargetDType::kKeep, orbax, orbax + "-hf");
      ExpectSameTensors(Path(orbax + "-hf"), bf16);
      Run(kHuggingFace, TargetDType::kF8, orbax, orbax + "-fp8");
      ExpectSameTensors(Path(orbax + "-fp8"), Read(Path(name + "-fp8")));
    }
  }
}

// F32 keeps what BF16 held; F32 to BF16 rounds each value once, whatever the way.
TEST_F(RoundTripTest, F32AndBf16) {
  using enum CheckpointFormat;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const Json config = RandomConfig(seed);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, config.dump()));
    const std::string name = std::to_string(seed);
    WriteCheckpoint(Path(name), config, TensorsOf(config), 1 + seed % 2);
    Run(kHuggingFace, TargetDType::kBF16, name, name + "-bf16");
    const auto bf16 = Read(Path(name + "-bf16"));
    Run(kHuggingFace, TargetDType::kF32, name + "-bf16", name + "-f32");
    for (const TestTensor& t : Read(Path(name + "-f32"))) EXPECT_EQ(t.tensor.dtype(), DType::kF32) << t.name;
    Run(kHuggingFace, TargetDType::kBF16, name + "-f32", name + "-bf16-again");
    ExpectSameTensors(Path(name + "-bf16-again"), bf16);
    Run(kOrbax, TargetDType::kBF16, name, name + "-orbax", seed % 2 == 0);
    Run(kHuggingFace, TargetDType::kKeep, name + "-orbax", name + "-hf");
    ExpectSameTensors(Path(name + "-hf"), bf16);
  }
}

}  // namespace
}  // namespace fathom
