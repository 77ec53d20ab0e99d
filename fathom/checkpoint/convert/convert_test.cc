#include "fathom/checkpoint/convert/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/error.h"
#include "fathom/checkpoint/convert/convert_journal.h"
#include "fathom/checkpoint/convert/test_convert.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/orbax/maxtext_names.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string ErrorOf(const auto& run, ErrorCode code = ErrorCode::kInput) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "";
}

// What MaxText wrote, with the model from its flags.
TEST_F(ConvertTest, MaxTextsOwnCheckpoint) {
  const fs::path sample = fs::path(FATHOM_TEST_DATA) / "orbax/v3-scanned-params-bf16";
  std::vector<std::string> flags;
  const Json given = ReadJsonFile(sample / "flags.json");
  for (const auto& [key, value] : given.items()) {
    if (key.starts_with("base_") && key != "base_output_directory") flags.push_back(key + "=" + value.dump());
  }
  for (const char* flag :
       {"model_name=deepseek3-671b", "override_model_config=true", "vocab_size=96", "num_experts=4", "num_experts_per_tok=2",
        "kv_lora_rank=12", "qk_nope_head_dim=16", "qk_rope_head_dim=8", "v_head_dim=12", "first_num_dense_layers=1", "q_lora_rank=20",
        "shared_experts=1", "n_routing_groups=2", "topk_routing_group=1"}) {
    flags.push_back(flag);
  }
  const RunConfig run = RunConfig::Resolve(flags);
  ConvertOptions options = To(CheckpointFormat::kHuggingFace, "", "hf");
  options.input = sample / "0/items";
  EXPECT_THAT(ErrorOf([&] { Convert(options); }), HasSubstr("model_name="));
  options.model = [&] { return ModelFromFlags(run); };
  Convert(options);
  const Checkpoint hf = Checkpoint::Open(Path("hf"));
  EXPECT_EQ(hf.config().num_nextn_predict_layers, 1);  // found in the checkpoint; the flags do not say so
  EXPECT_NO_THROW(ValidateAgainstConfig(hf));
  const auto expected = SafetensorsFile::Open(sample / "expected.safetensors");
  const TensorEntry* stacked = expected->Find("params.params.decoder.moe_layers.DeepSeekMoeBlock_0.MoeBlock_0.wi_0");  // [E, L, D, F]
  const Shape s = stacked->shape;
  const auto* values = reinterpret_cast<const BF16*>(expected->Bytes(*stacked).data());
  const Tensor expert = hf.Get("model.layers.2.mlp.experts.3.gate_proj.weight");
  for (int64_t d = 0; d < s[2]; ++d) {
    for (int64_t f = 0; f < s[3]; ++f) EXPECT_EQ(expert.data<BF16>()[f * s[2] + d], values[((3 * s[1] + 1) * s[2] + d) * s[3] + f]);
  }
  const TensorEntry* bias = expected->Find("params.params.decoder.moe_layers.DeepSeekMoeBlock_0.MoeBlock_0.gate.bias");  // [L, E]
  EXPECT_EQ(std::memcmp(hf.Get("model.layers.2.mlp.gate.e_score_correction_bias").view().raw(),
                        expected->Bytes(*bias).data() + bias->NumBytes() / 2, static_cast<size_t>(bias->NumBytes() / 2)),
            0);
}

// Sizes beyond a block, so that scales have edges.
Json Fp8Config() {
  Json c = WithFp8(TinyConfig());
  c.update({{"hidden_size", 136}, {"intermediate_size", 260}, {"moe_intermediate_size", 130}});
  return c;
}

TEST_F(ConvertTest, Fp8ToBf16AndBack) {
  const auto tensors = TensorsOf(Fp8Config());
  WriteCheckpoint(Path("fp8"), Fp8Config(), tensors, 3);
  ConvertOptions there = To(CheckpointFormat::kHuggingFace, "fp8", "bf16"), back = To(CheckpointFormat::kHuggingFace, "bf16", "again");
  there.dtype.target = TargetDType::kBF16;
  Convert(there);
  const Checkpoint bf16 = Checkpoint::Open(Path("bf16"));
  EXPECT_FALSE(bf16.config().fp8);
  EXPECT_EQ(bf16.names().size() * 2 - tensors.size(),
            bf16.names().size() - std::ranges::count_if(tensors, [](const TestTensor& t) { return t.name.ends_with(kScaleSuffix); }));
  EXPECT_EQ(bf16.Find("model.layers.1.mlp.gate.e_score_correction_bias")->dtype, DType::kF32);
  for (const TestTensor& t : tensors) {
    if (t.tensor.dtype() != DType::kF8E4M3) continue;
    const Tensor got = bf16.Get(t.name);
    ASSERT_EQ(got.dtype(), DType::kBF16);
    for (int64_t i = 0; i < got.NumElements(); i += 17)
      ASSERT_EQ(got.data<BF16>()[i], ToBF16(ToFloat(t.tensor.data<F8E4M3>()[i]) * 1e-3f)) << t.name;
  }
  back.dtype.target = TargetDType::kF8;
  const ConvertResult result = Convert(back);
  EXPECT_EQ(result.not_reproduced, 0);
  EXPECT_TRUE(Checkpoint::Open(Path("again")).config().fp8);
  EXPECT_NO_THROW(ValidateAgainstConfig(Checkpoint::Open(Path("again"))));
  there.input = Path("again");
  there.output = Path("bf16-again");
  Convert(there);
  std::vector<TestTensor> want;
  for (const std::string& name : bf16.names()) want.push_back({name, bf16.Get(name)});
  ExpectSameTensors(Path("bf16-again"), want);
}

TEST_F(ConvertTest, WholeF32AndUe8m0) {
  const auto tensors = TensorsOf(TinyConfig("deepseek_v32"));
  WriteCheckpoint(Path("f32"), TinyConfig("deepseek_v32"), tensors);
  ConvertOptions options = To(CheckpointFormat::kHuggingFace, "f32", "fp8");
  options.dtype = {TargetDType::kF8, ScaleFormat::kUe8m0, false};
  EXPECT_GT(Convert(options).not_reproduced, 0);
  const Checkpoint fp8 = Checkpoint::Open(Path("fp8"));
  EXPECT_TRUE(fp8.config().scale_ue8m0);
  EXPECT_EQ(fp8.Find("model.layers.0.self_attn.indexer.k_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ(fp8.Find("model.layers.0.self_attn.indexer.weights_proj.weight")->dtype, DType::kBF16);
  int exponent;
  EXPECT_EQ(std::frexp(fp8.Get("model.layers.0.self_attn.indexer.wk.weight_scale_inv").data<float>()[0], &exponent), 0.5f);
}

std::map<std::string, std::string> Files(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) files[entry.path().lexically_relative(dir).string()] = ReadTextFile(entry.path());
  }
  return files;
}

// A run that a damaged input stops goes on, once that is healed, and ends with the same bytes as a run without a break.
TEST_F(ConvertTest, ContinuesWithTheSameBytes) {
  WriteCheckpoint(Path("hf"), TinyConfig(), TensorsOf(TinyConfig()));
  ConvertOptions there = To(CheckpointFormat::kOrbax, "hf", "orbax");
  there.target_file_size = 2000;
  Convert(there);
  ConvertOptions options = To(CheckpointFormat::kHuggingFace, "orbax", "whole");
  options.max_shard_size = 1500;
  options.dtype.target = TargetDType::kF8;
  const int64_t not_reproduced = Convert(options).not_reproduced;
  EXPECT_GT(not_reproduced, 0);
  std::vector<fs::path> data;
  for (const auto& entry : fs::directory_iterator(Path("orbax") / "0/items/d")) data.push_back(entry.path());
  int resumed = 0;
  for (const fs::path& path : data) {
    const std::string sound = ReadTextFile(path);
    const auto time = fs::last_write_time(path);
    std::ofstream(path, std::ios::binary) << std::string(sound.size(), '\x55');
    fs::last_write_time(path, time);
    options.output = Path("again");
    options.overwrite = true;
    if (ErrorOf([&] { Convert(options); }).empty()) continue;  // the tree's file: the error came before anything was written
    std::ofstream(path, std::ios::binary) << sound;
    fs::last_write_time(path, time);
    const ConvertResult result = Convert(options);
    resumed += result.units_resumed > 0;
    EXPECT_EQ(result.not_reproduced, not_reproduced);
    EXPECT_EQ(Files(Path("again")), Files(Path("whole")));
    fs::remove_all(Path("again"));
  }
  EXPECT_GT(resumed, 2);
  Convert(To(CheckpointFormat::kOrbax, "hf", "orbax2"));
  Convert(To(CheckpointFormat::kOrbax, "hf", "orbax3"));
  EXPECT_EQ(Files(Path("orbax2")), Files(Path("orbax3")));  // names and times come from the input
}

TEST_F(ConvertTest, RefusesWhatItShould) {
  WriteCheckpoint(Path("hf"), TinyConfig(), TensorsOf(TinyConfig()));
  ConvertOptions options = To(CheckpointFormat::kHuggingFace, "hf", "out");
  Convert(options);
  EXPECT_THAT(ErrorOf([&] { Convert(options); }, ErrorCode::kUsage), HasSubstr("overwrite=true"));
  options.overwrite = true;
  EXPECT_EQ(ErrorOf([&] { Convert(options); }), "");
  {
    const StagedFolder other(Path("out"), true);
    EXPECT_THAT(ErrorOf([&] { Convert(options); }, ErrorCode::kInput), HasSubstr("another process"));
  }
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "hf", "hf/in")); }, ErrorCode::kUsage),
              HasSubstr("lies in the input"));
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "absent", "x")); }), HasSubstr("absent"));
  fs::create_directories(Path("empty"));
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "empty", "x")); }), HasSubstr("neither"));
  EXPECT_FALSE(fs::exists(Path("x")));
}

TEST_F(ConvertTest, BadInputIsNamed) {
  auto tensors = TensorsOf(TinyConfig());
  EraseTensor(tensors, "model.layers.1.mlp.experts.2.up_proj.weight");
  WriteCheckpoint(Path("missing"), TinyConfig(), tensors);
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kOrbax, "missing", "x")); }), HasSubstr("experts.2.up_proj.weight is missing"));
  tensors = TensorsOf(TinyConfig());
  FindTensor(tensors, "model.norm.weight").tensor = RandomTensor(DType::kF32, {7}, 1);
  WriteCheckpoint(Path("shape"), TinyConfig(), tensors);
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kOrbax, "shape", "x")); }), HasSubstr("model.norm.weight: shape is [7]"));
  tensors = TensorsOf(WithFp8(TinyConfig()));
  EraseTensor(tensors, "model.layers.0.mlp.up_proj.weight_scale_inv");
  WriteCheckpoint(Path("scale"), WithFp8(TinyConfig()), tensors);
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "scale", "x")); }),
              testing::AllOf(HasSubstr("model.safetensors"), HasSubstr("up_proj.weight_scale_inv is missing")));
  const Json sparse = TinyConfig("deepseek_v32");
  tensors = TensorsOf(sparse);
  std::erase_if(tensors, [](const TestTensor& t) { return t.name.find(".indexer.") != t.name.npos; });
  WriteCheckpoint(Path("indexer"), sparse, tensors);
  for (const auto to : {CheckpointFormat::kHuggingFace, CheckpointFormat::kOrbax}) {
    EXPECT_THAT(ErrorOf([&] { Convert(To(to, "indexer", "x")); }), HasSubstr("indexer"));
    EXPECT_THAT(ErrorOf([&] { PlanConvert(To(to, "indexer", "x")); }), HasSubstr("more; fathom check files lists them"));
  }
  EXPECT_FALSE(fs::exists(Path("x")));
}

// Files that a checkpoint from elsewhere only points to are not read, much less copied; the hub's cache keeps its files behind links.
TEST_F(ConvertTest, LinksThatLeadOut) {
  const auto convert = [&](const std::string& input) {
    return ErrorOf([&] { Convert(To(CheckpointFormat::kOrbax, input, input + "-out")); });
  };
  WriteCheckpoint(Path("hf"), TinyConfig(), TensorsOf(TinyConfig()));
  WriteFileAtomically(Path("secret.json"), "{}");
  fs::create_symlink(Path("secret.json"), Path("hf") / "tokenizer.json");
  EXPECT_THAT(convert("hf"), testing::AllOf(HasSubstr("tokenizer.json: leads out"), HasSubstr("secret.json")));
  fs::remove(Path("hf") / "tokenizer.json");
  fs::create_directories(Path("cache/snapshots"));
  fs::rename(Path("hf"), Path("cache/snapshots/1"));
  fs::create_directories(Path("cache/blobs"));
  fs::rename(Path("cache/snapshots/1") / kSingleFile, Path("cache/blobs/abc"));
  fs::create_symlink("../../blobs/abc", Path("cache/snapshots/1") / kSingleFile);
  EXPECT_EQ(convert("cache/snapshots/1"), "");
  fs::create_directories(Path("hf"));
  fs::copy(Path("cache/snapshots/1/config.json"), Path("hf/config.json"));
  fs::create_symlink(Path("cache/blobs/abc"), Path("hf") / kSingleFile);
  EXPECT_THAT(convert("hf"), HasSubstr("model.safetensors: leads out"));
  const fs::path items = Path("cache/snapshots/1-out/0/items");
  fs::rename(items / "d", Path("d"));
  fs::create_directory_symlink(Path("d"), items / "d");
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "cache/snapshots/1-out", "x")); }), HasSubstr("leads out"));
}

TEST_F(ConvertTest, AMissingArrayIsNamed) {
  WriteCheckpoint(Path("hf"), TinyConfig(), TensorsOf(TinyConfig()));
  ConvertOptions options = To(CheckpointFormat::kOrbax, "hf", "orbax");
  options.ocdbt = false;
  Convert(options);
  const fs::path array = Path("orbax") / "0/items/params.params.decoder.decoder_norm.scale";
  fs::rename(array, Path("kept"));
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "orbax", "x")); }), HasSubstr("decoder_norm.scale is missing"));
  Json meta = ReadJsonFile(Path("kept") / "zarr.json");
  meta["shape"] = meta["chunk_grid"]["configuration"]["chunk_shape"] = {8};
  meta["codecs"][0]["configuration"]["chunk_shape"] = {8};
  WriteFileAtomically(Path("kept") / "zarr.json", meta.dump());
  fs::rename(Path("kept"), array);
  EXPECT_THAT(ErrorOf([&] { Convert(To(CheckpointFormat::kHuggingFace, "orbax", "x")); }), HasSubstr("decoder_norm.scale has shape [8]"));
}

TEST_F(ConvertTest, AFileThatChangesIsNoticed) {
  WriteFileAtomically(Path("a"), "one");
  const FileStamps stamps({Path("a")});
  EXPECT_NO_THROW(stamps.CheckUnchanged());
  WriteFileAtomically(Path("a"), "three");
  EXPECT_THAT(ErrorOf([&] { stamps.CheckUnchanged(); }), HasSubstr("changed while"));
  fs::remove(Path("a"));
  EXPECT_NE(ErrorOf([&] { stamps.CheckUnchanged(); }), "");
}

TEST_F(ConvertTest, AJournalOfOtherWorkIsDropped) {
  fs::create_directories(Path("stage"));
  {
    ConvertJournal journal(Path("stage"), {{"work", 1}});
    journal.Add("unit", {{"bytes", 3}});
    std::ofstream(Path("stage") / "journal.jsonl", std::ios::app) << "{\"unit\": \"ha";  // killed while writing
  }
  {
    const ConvertJournal same(Path("stage"), {{"work", 1}});
    ASSERT_NE(same.Find("unit"), nullptr);
    EXPECT_EQ(same.Find("ha"), nullptr);
  }
  const ConvertJournal other(Path("stage"), {{"work", 2}});
  EXPECT_TRUE(other.done().empty());
}

// Older releases stacked the router bias as [E, L], and kept it only beside the parameters.
TEST(MaxTextNames, ShapesOfV3) {
  Json config = TinyConfig();
  config.update({{"num_hidden_layers", 3}, {"first_k_dense_replace", 1}});
  std::map<std::string, Shape> shapes;
  for (const MaxTextArray& array : MaxTextArrays(ParseModelConfig(config, "test"), true)) shapes[array.name] = array.shape();
  EXPECT_EQ(shapes.at("decoder.moe_layers.DeepSeekMoeBlock_0.MoeBlock_0.wi_0"), (Shape{4, 2, 16, 8}));
  EXPECT_EQ(shapes.at("decoder.moe_layers.DeepSeekMoeBlock_0.MoeBlock_0.gate.bias"), (Shape{2, 4}));
  EXPECT_EQ(shapes.at("decoder.moe_layers.self_attention.out.kernel"), (Shape{2, 2, 8, 16}));
  EXPECT_EQ(shapes.at("decoder.moe_layers.self_attention.wq_b.kernel"), (Shape{12, 2, 2, 12}));
  EXPECT_EQ(shapes.at("decoder.dense_layers.pre_self_attention_layer_norm.scale"), (Shape{16, 1}));
  EXPECT_EQ(shapes.at("mtp_block.mtp_layer_1.mtp_1_projection.kernel"), (Shape{32, 16}));
  EXPECT_EQ(shapes.at("mtp_block.mtp_layer_1.mtp_1_final_norm.scale"), (Shape{16}));
  EXPECT_EQ(shapes.at("mtp_block.mtp_layer_1.mtp_1_transformer_layer.DeepSeekMoeBlock_0.MoeBlock_0.wo"), (Shape{4, 8, 16}));
}

std::vector<int64_t> PieceSizes(int64_t n, int64_t width, int64_t unit, int64_t piece_bytes) {
  std::vector<int64_t> sizes;
  int64_t end = 0;
  ForPieces(n, width, unit, piece_bytes, [&](int64_t begin, int64_t count) {
    EXPECT_EQ(begin, end);
    end = begin + count;
    sizes.push_back(count);
    return true;
  });
  return sizes;
}

TEST(ForPieces, AreWholeUnitsAndAtLeastOne) {
  EXPECT_EQ(PieceSizes(25, 100, 1, 1000), (std::vector<int64_t>{10, 10, 5}));
  EXPECT_EQ(PieceSizes(20, 100, 4, 1000), (std::vector<int64_t>{8, 8, 4}));
  EXPECT_EQ(PieceSizes(20, 100, 16, 1000), (std::vector<int64_t>{16, 4}));
  EXPECT_EQ(PieceSizes(7, 5000, 3, 1000), (std::vector<int64_t>{3, 3, 1}));
  EXPECT_TRUE(PieceSizes(0, 4, 1, 1000).empty());
  EXPECT_FALSE(ForPieces(20, 100, 1, 1000, [](int64_t begin, int64_t) { return begin > 0; }));
}

}  // namespace
}  // namespace fathom
