#include "fathom/checkpoint/check/check_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/checkpoint/safetensors/manifest.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kVictim = "model.layers.1.self_attn.kv_b_proj.weight";
constexpr const char* kBias = "model.layers.1.mlp.gate.e_score_correction_bias";

class CheckFilesTest : public testing::Test {
 protected:
  CheckFilesTest() { Use(TinyConfig()); }
  void Use(const Json& config) {
    config_ = config;
    tensors_ = TinyTensors(config);
  }
  std::vector<std::string> Found(int exit_code, Severity severity = Severity::kNote, size_t shards = 3) {
    std::filesystem::remove_all(options_.input);
    WriteCheckpoint(options_.input, config_, tensors_, shards);
    return Check(exit_code, severity);
  }
  // Texts of the findings, which must have this severity.
  std::vector<std::string> Check(int exit_code, Severity severity) {
    report_ = CheckFiles(options_);
    EXPECT_EQ(report_.ExitCode(), exit_code);
    std::vector<std::string> texts;
    for (const Finding& f : report_.findings) {
      EXPECT_EQ(static_cast<int>(f.severity), static_cast<int>(severity)) << f.text;
      texts.push_back(f.text);
    }
    return texts;
  }
  Tensor& Find(const std::string& name) { return FindTensor(tensors_, name).tensor; }
  TemporaryFolder folder_;
  Json config_;
  std::vector<TestTensor> tensors_;
  CheckFilesOptions options_{.input = folder_.path() / "in"};
  FilesReport report_;
};

TEST_F(CheckFilesTest, SoundOnes) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "deepseek_v32"}) {
    Use(TinyConfig(family));
    EXPECT_THAT(Found(0), IsEmpty());
    EXPECT_EQ(report_.tensors, std::ssize(tensors_));
    Use(WithFp8(TinyConfig(family)));
    EXPECT_THAT(Found(0), IsEmpty());
  }
}

TEST_F(CheckFilesTest, EveryFaultIsReported) {
  Find(kVictim).mutable_data<float>()[37] = std::numeric_limits<float>::quiet_NaN();
  Find("lm_head.weight").mutable_data<float>()[0] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(
      Found(1, Severity::kFault),
      testing::UnorderedElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("1 NaN and 0 infinite values of 256, the first at index 37")),
                                    AllOf(HasSubstr("lm_head.weight"), HasSubstr("0 NaN and 1 infinite"))));
}

TEST_F(CheckFilesTest, FindsTheLastOddValueOfALongTensor) {
  config_["vocab_size"] = 20000;
  tensors_ = TinyTensors(config_);
  options_.memory_limit = 1 << 20;  // pieces of 64 KiB
  Find("lm_head.weight").mutable_data<float>()[20000 * 16 - 1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(HasSubstr("the first at index 319999")));
}

TEST_F(CheckFilesTest, ScalesAndCodes) {
  Use(WithFp8(TinyConfig()));
  const auto set = [&](const char* layer, float scale) {
    Find(std::string("model.layers.0.mlp.") + layer + "_proj.weight_scale_inv").mutable_data<float>()[0] = scale;
  };
  set("up", 0);
  set("gate", -1);
  set("down", std::numeric_limits<float>::infinity());
  Find(kVictim).mutable_data<F8E4M3>()[5].bits = 0xff;
  EXPECT_THAT(
      Found(1, Severity::kFault),
      testing::UnorderedElementsAre(AllOf(HasSubstr("up_proj.weight_scale_inv"), HasSubstr("1 scales are zero")),
                                    AllOf(HasSubstr("gate_proj"), HasSubstr("1 negative")),
                                    AllOf(HasSubstr("down_proj"), HasSubstr("1 infinite")), AllOf(HasSubstr(kVictim), HasSubstr("1 NaN"))));
}

TEST_F(CheckFilesTest, RouterBiases) {
  const std::string mtp_bias = "model.layers.2.mlp.gate.e_score_correction_bias";
  config_["num_hidden_layers"] = 3;
  tensors_ = TinyTensors(config_);
  Find(kBias) = Tensor(DType::kF32, {4});
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(AllOf(HasSubstr(kBias), HasSubstr("of 2 router biases are all zero"))));
  Find(mtp_bias) = Tensor(DType::kF32, {4});
  EXPECT_THAT(Found(0, Severity::kNote), ElementsAre(HasSubstr("balancing never ran")));
  Find(kBias) = RandomTensor(DType::kF32, {4}, 1);
  Find(mtp_bias) = RandomTensor(DType::kBF16, {4}, 1);
  EXPECT_THAT(Found(0, Severity::kNote), ElementsAre(AllOf(HasSubstr(mtp_bias), HasSubstr("only BF16 values"))));
}

TEST_F(CheckFilesTest, MalformedOnesListEverything) {
  EraseTensor(tensors_, kVictim);
  tensors_.push_back({"surplus", Tensor(DType::kF32, {2})});
  Find("lm_head.weight") = Tensor(DType::kF32, {3, 5});
  EXPECT_THAT(Found(3, Severity::kMalformed),
              testing::UnorderedElementsAre(HasSubstr(kVictim), HasSubstr("surplus"), HasSubstr("shape is [3, 5]")));
}

TEST_F(CheckFilesTest, BrokenFilesAreAllNamed) {
  Found(0);
  std::ofstream(options_.input / ShardName(0, 3), std::ios::binary) << "short";
  std::ofstream(options_.input / ShardName(2, 3), std::ios::binary) << "";
  std::ofstream(options_.input / "config.json") << "{";
  EXPECT_THAT(Check(3, Severity::kMalformed),
              ElementsAre(HasSubstr("config.json"), HasSubstr(ShardName(0, 3)), HasSubstr(ShardName(2, 3))));
  options_.input = folder_.path() / "absent";
  EXPECT_THAT(Check(3, Severity::kMalformed), Contains(HasSubstr("absent")));
}

TEST_F(CheckFilesTest, MtpThatTheConfigPromises) {
  std::erase_if(tensors_, [](const TestTensor& t) { return t.name.starts_with("model.layers.2."); });
  EXPECT_THAT(Found(0, Severity::kNote), Contains(HasSubstr("num_nextn_predict_layers 1")));
}

TEST_F(CheckFilesTest, ManifestHoldsForOtherShards) {
  options_.manifest = folder_.path() / "manifest.json";
  EXPECT_THAT(Found(0), IsEmpty());
  EXPECT_TRUE(report_.manifest_written);
  EXPECT_THAT(Found(0, Severity::kNote, 5), IsEmpty());  // other shards, same tensors
  EXPECT_FALSE(report_.manifest_written);
}

TEST_F(CheckFilesTest, ManifestNamesTheFlippedTensor) {
  options_.manifest = folder_.path() / "manifest.json";
  Found(0);
  auto* bytes = reinterpret_cast<uint8_t*>(Find(kVictim).mutable_view().raw());
  bytes[100] ^= 1;
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("the manifest says"))));
  bytes[100] ^= 1;
  Manifest manifest = ReadManifest(options_.manifest);
  manifest["ghost"] = {"F32", "[1]", "0"};
  manifest.erase(kBias);
  WriteManifest(options_.manifest, manifest);
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(HasSubstr("ghost"), HasSubstr(kBias)));
  std::ofstream(options_.manifest) << "{}";
  EXPECT_THROW(CheckFiles(options_), Error);
}

TEST_F(CheckFilesTest, HashIsXxh3) {
  Hasher hasher;
  hasher.Update(std::as_bytes(std::span("a", 1)));
  hasher.Update(std::as_bytes(std::span("bc", 2)));
  EXPECT_EQ(hasher.Hex(), "78af5f94892f3950");  // of "abc", as xxhsum -H3 prints it
}

TEST_F(CheckFilesTest, AgainstTheSame) {
  options_.against = folder_.path() / "other";
  WriteCheckpoint(options_.against, config_, tensors_, 2);
  EXPECT_THAT(Found(0), IsEmpty());
  EXPECT_EQ(report_.comparisons.size(), tensors_.size());
  for (const TensorComparison& c : report_.comparisons) EXPECT_EQ(c.verdict, Verdict::kSameBits) << c.name;
}

TEST_F(CheckFilesTest, AgainstAChangedOne) {
  options_.against = folder_.path() / "other";
  auto other = tensors_;
  Tensor changed = RandomTensor(DType::kF32, FindTensor(other, kVictim).tensor.shape(), HashName(kVictim));
  changed.mutable_data<float>()[3] += 0.5f;
  FindTensor(other, kVictim).tensor = changed;
  EraseTensor(other, "model.norm.weight");
  other.push_back({"surplus", Tensor(DType::kI64, {1})});
  WriteCheckpoint(options_.against, config_, other);
  EXPECT_THAT(Found(1, Severity::kFault), testing::UnorderedElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("max abs 0.5")),
                                                                        AllOf(HasSubstr("model.norm.weight"), HasSubstr("not in")),
                                                                        AllOf(HasSubstr("surplus"), HasSubstr("only in"))));
}

// Within one format nothing counts as rounding.
TEST_F(CheckFilesTest, AgainstOneThatDiffersByALittle) {
  options_.against = folder_.path() / "other";
  auto other = tensors_;
  Tensor changed = RandomTensor(DType::kF32, FindTensor(other, kVictim).tensor.shape(), HashName(kVictim));
  changed.mutable_data<float>()[3] *= 1.0001f;
  FindTensor(other, kVictim).tensor = changed;
  WriteCheckpoint(options_.against, config_, other);
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("max abs"))));
}

TEST_F(CheckFilesTest, AgainstAnotherFormat) {
  options_.against = folder_.path() / "other";
  Use(WithFp8(TinyConfig()));
  config_["num_attention_heads"] = 20;  // matrices of several blocks
  tensors_ = TinyTensors(config_);
  std::vector<TestTensor> bf16;
  for (const TestTensor& t : tensors_) {
    if (t.name.ends_with("_scale_inv")) continue;
    if (t.tensor.dtype() != DType::kF8E4M3) {
      bf16.push_back(t);
      continue;
    }
    Tensor value(DType::kBF16, t.tensor.shape());
    for (int64_t i = 0; i < value.NumElements(); ++i) value.mutable_data<BF16>()[i] = ToBF16(1e-3f * ToFloat(t.tensor.data<F8E4M3>()[i]));
    bf16.push_back({t.name, value});
  }
  Json other = config_;
  other.erase("quantization_config");
  WriteCheckpoint(options_.against, other, bf16);
  EXPECT_THAT(Found(0), IsEmpty());
  int64_t rounded = 0;
  for (const TensorComparison& c : report_.comparisons) {
    rounded += c.verdict == Verdict::kRounded;
    EXPECT_TRUE(c.verdict != Verdict::kRounded || c.difference.Cosine() > 0.9999) << c.name;
  }
  EXPECT_GT(rounded, 10);
  FindTensor(bf16, kVictim).tensor = RandomTensor(DType::kBF16, FindTensor(bf16, kVictim).tensor.shape(), 99);
  WriteCheckpoint(options_.against, other, bf16);
  EXPECT_THAT(Found(1, Severity::kFault), ElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("F8_E4M3"), HasSubstr("BF16"))));
}

class CheckOrbaxTest : public CheckFilesTest {
 protected:
  // An MTP module's embedding and head equal the main model's in the hub's files; the export warns where they don't.
  void ShareCopies() {
    for (TestTensor& t : tensors_) {
      if (t.name.ends_with("2.embed_tokens.weight")) t.tensor = Find("model.embed_tokens.weight");
      if (t.name.ends_with("shared_head.head.weight")) t.tensor = Find("lm_head.weight");
    }
  }
  // The tensors as an Orbax checkpoint in folder "orbax"; the input of the check.
  void Export(bool scan, bool ocdbt = true) {
    const auto hf = folder_.path() / "hf";
    std::filesystem::remove_all(hf);
    WriteCheckpoint(hf, config_, tensors_);
    ConvertOptions options{.input = hf, .output = folder_.path() / "orbax", .to = CheckpointFormat::kOrbax};
    options.scan_layers = scan;
    options.ocdbt = ocdbt;
    options.overwrite = true;
    Convert(options);
    options_.input = options.output;
  }
};

TEST_F(CheckOrbaxTest, SoundOnesAgainstTheHubs) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "deepseek_v32"}) {
    for (const bool scan : {true, false}) {
      SCOPED_TRACE(fmt::format("{} scanned {}", family, scan));
      Use(TinyConfig(family));
      ShareCopies();
      Export(scan);
      options_.against = folder_.path() / "hf";
      options_.manifest = folder_.path() / fmt::format("{}.json", family);  // written by the first, holds for the second
      EXPECT_THAT(Check(0, Severity::kNote), IsEmpty());
      EXPECT_EQ(report_.tensors, std::ssize(tensors_));
      EXPECT_EQ(report_.comparisons.size(), tensors_.size());
      for (const TensorComparison& c : report_.comparisons) EXPECT_EQ(c.verdict, Verdict::kSameBits) << c.name;
      std::swap(options_.input, options_.against);  // the manifest and the comparison hold the other way round, too
      EXPECT_THAT(Check(0, Severity::kNote), IsEmpty());
    }
  }
}

TEST_F(CheckOrbaxTest, AgainstFp8) {
  Use(WithFp8(TinyConfig()));
  ShareCopies();
  Export(true);
  options_.against = folder_.path() / "hf";
  F8E4M3& changed = Find(kVictim).mutable_data<F8E4M3>()[5];
  changed = ToF8E4M3(ToFloat(changed) + 16);  // 0.016 with its scale
  std::filesystem::remove_all(options_.against);
  WriteCheckpoint(options_.against, config_, tensors_);
  Check(0, Severity::kNote);
  int64_t rounded = 0;
  for (const TensorComparison& c : report_.comparisons) {
    rounded += c.verdict == Verdict::kRounded;
    EXPECT_EQ(c.difference.max_abs > 1e-3, c.name == kVictim) << c.name << " " << c.difference.max_abs;
  }
  EXPECT_GT(rounded, 10);
}

TEST_F(CheckOrbaxTest, FaultsAreReported) {
  ShareCopies();
  Find(kVictim).mutable_data<float>()[37] = std::numeric_limits<float>::quiet_NaN();
  Export(true);
  EXPECT_THAT(Check(1, Severity::kFault),
              ElementsAre(AllOf(HasSubstr(kVictim), HasSubstr("1 NaN and 0 infinite values of 256, the first at index 37"))));
  config_["num_nextn_predict_layers"] = 2;
  WriteFileAtomically(options_.input / "0/config.json", config_.dump());
  EXPECT_THAT(CheckFiles(options_).findings[0].text, HasSubstr("1 MTP modules in the checkpoint, 2 in the config"));
}

TEST_F(CheckOrbaxTest, EveryMissingOrExtraArrayIsReported) {
  ShareCopies();
  Export(false, false);
  const auto items = options_.input / "0/items";
  const std::string prefix = "params.params.decoder.";
  std::filesystem::rename(items / (prefix + "decoder_norm.scale"), items / (prefix + "surplus.scale"));
  std::filesystem::remove_all(items / (prefix + "moe_layers_0.self_attention.wkv_b.kernel"));
  EXPECT_THAT(Check(3, Severity::kMalformed),
              testing::UnorderedElementsAre(HasSubstr("decoder_norm.scale is missing"), HasSubstr("wkv_b.kernel is missing"),
                                            HasSubstr("surplus.scale is not of this model")));
}

TEST_F(CheckOrbaxTest, DamagedChunksAreNamed) {
  ShareCopies();
  Export(true);
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(options_.input / "0/items/d")) {
    if (largest.empty() || entry.file_size() > std::filesystem::file_size(largest)) largest = entry.path();
  }
  const std::string sound = ReadTextFile(largest);
  std::ofstream(largest, std::ios::binary) << std::string(sound.size(), 'x');
  EXPECT_THAT(Check(3, Severity::kMalformed), Contains(AllOf(HasSubstr(largest.filename().string()), HasSubstr("array params.params."))));
  std::filesystem::remove(options_.input / "0/config.json");
  EXPECT_THAT(Check(3, Severity::kMalformed), ElementsAre(HasSubstr("model_name=")));
}

TEST_F(CheckFilesTest, SameReportForAnyThreads) {
  options_.manifest = folder_.path() / "manifest.json";
  Find(kVictim).mutable_data<float>()[1] = std::numeric_limits<float>::infinity();
  Found(1, Severity::kFault);
  const std::string manifest = ReadTextFile(options_.manifest);
  SetThreads(1);
  std::filesystem::remove(options_.manifest);
  EXPECT_THAT(Check(1, Severity::kFault), testing::SizeIs(1));
  SetThreads(0);
  EXPECT_EQ(ReadTextFile(options_.manifest), manifest);
}

}  // namespace
}  // namespace fathom
