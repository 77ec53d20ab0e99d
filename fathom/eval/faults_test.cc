// Every known fault, built into small models: it changes the logits, and it is named when the logits are its.
#include "fathom/eval/faults.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "fathom/eval/diagnose_logits.h"
#include "fathom/eval/golden_arrays.h"
#include "fathom/eval/golden_diagnosis.h"
#include "fathom/model/load.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr LogitBars kBars{.max_kl_div = 1e-8};

Checkpoint Open(const std::string& name) { return Checkpoint::Open(fs::path(FATHOM_TEST_DATA) / "golden" / name); }

// Long enough for an indexer to leave keys out.
std::vector<int32_t> Prompt(const ModelConfig& config) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < std::max<int64_t>(24, 3 * config.index_topk); ++i)
    ids.push_back(static_cast<int32_t>(3 + i * 37 % (config.vocab_size - 3)));
  return ids;
}

void ForEach(Tensor& tensor, FunctionRef<float(float)> f) {
  float* x = tensor.mutable_data<float>();
  for (int64_t i = 0; i < tensor.NumElements(); ++i) x[i] = f(x[i]);
}

// A model in which the fault makes a difference: choice scores below 0, without which 0 for -infinity changes nothing; one group kept, so
// that the best experts of all are not in it; small embeddings, so that an epsilon counts.
ForwardModel Sensitive(const Checkpoint& checkpoint, std::string_view fault) {
  DecoderParams params = CopyParams(checkpoint, DType::kF32);
  ModelConfig config = checkpoint.config();
  if (fault == "group_mask_zero") {
    for (BlockParams& layer : params.layers) {
      Tensor& bias = layer.moe.e_score_correction_bias.value;
      if (!bias.empty()) ForEach(bias, [](float b) { return b - 2; });
    }
  }
  if (fault == "groups_ignored") config.topk_group = 1;
  if (fault == "norm_epsilon") ForEach(params.embed_tokens.value, [](float x) { return 0.01F * x; });
  return ForwardModel(std::move(params), config, DType::kF32, {});
}

GoldenLogits LogitsOf(ForwardModel& model, const std::vector<int32_t>& ids) { return {"", ids, model.LogitRows(ids)}; }

FaultSearch Searched(const ForwardModel& model, const GoldenLogits& golden) {
  FaultSearch search(model, {}, kBars);
  search.Add(golden, [] {});
  return search;
}

class FaultsTest : public testing::TestWithParam<const char*> {};

TEST_P(FaultsTest, EachChangesTheLogitsAndIsNamed) {
  const Checkpoint checkpoint = Open(GetParam());
  const std::vector<int32_t> prompt = Prompt(checkpoint.config());
  for (const KnownFault& fault : KnownFaults()) {
    if (!fault.can_occur(checkpoint.config())) continue;
    ForwardModel sound = Sensitive(checkpoint, fault.name), faulty = WithFault(sound, {}, fault);
    const GoldenLogits golden = LogitsOf(faulty, prompt);
    EXPECT_GT(CompareLogits(golden.logits, LogitsOf(sound, prompt).logits, kBars).max_kl, 1e-7) << fault.what;
    const auto cause = Searched(sound, golden).Cause();
    ASSERT_TRUE(cause) << fault.what;
    EXPECT_EQ(cause->name, fault.name);
    EXPECT_TRUE(cause->max_kl <= 1e-8) << fault.what << ": " << cause->max_kl;
  }
}

TEST_P(FaultsTest, NoneIsAccusedOfAnotherFault) {
  const Checkpoint checkpoint = Open(GetParam());
  DecoderParams params = CopyParams(checkpoint, DType::kF32);
  ForEach(params.layers[0].self_attn.o_proj.value, [](float x) { return x + 0.1F * std::fabs(x); });
  ForwardModel odd(std::move(params), checkpoint.config(), DType::kF32, {}), sound = Sensitive(checkpoint, "");
  const FaultSearch search = Searched(sound, LogitsOf(odd, Prompt(checkpoint.config())));
  EXPECT_FALSE(search.Cause());
  const GoldenLogits golden = LogitsOf(odd, Prompt(checkpoint.config()));
  FaultSearch lax(sound, {}, {.max_kl_div = 1e9});
  lax.Add(golden, [] {});
  EXPECT_FALSE(lax.Cause(CompareLogits(golden.logits, LogitsOf(sound, Prompt(checkpoint.config())).logits, kBars).max_kl))
      << "within such bars is any fault, and none explains much";
  std::set<std::string_view> names;
  for (const TriedFault& t : search.Tried()) EXPECT_TRUE(names.insert(t.name).second) << t.name << " twice";
  EXPECT_GE(names.size(), 5u);
}

INSTANTIATE_TEST_SUITE_P(Models, FaultsTest, testing::Values("v2-lite", "v2", "v3", "v32-indexer-training"));

// A folder whose arrays are replaced.
class GoldenDiagnosisTest : public testing::Test {
 protected:
  using Arrays = std::map<std::string, Tensor>;
  GoldenDiagnosisTest() : golden_(Open("v3")) {}

  void Replace(const Arrays& arrays) {
    std::vector<TensorInfo> infos;
    for (const auto& [name, t] : arrays) infos.push_back({name, t.dtype(), t.shape()});
    SafetensorsWriter writer(folder_.path() / "golden.safetensors", infos);
    size_t i = 0;
    for (const auto& [name, t] : arrays) writer.Write(i++, t);
    writer.Close();
    golden_.expected = SafetensorsFile::Open(folder_.path() / "golden.safetensors");
  }
  GoldenDiagnosis Diagnose() const {
    return DiagnoseGolden(golden_, CompareGolden(golden_, ComputeGolden(golden_, DType::kF32)), [] {});
  }

  GoldenCase golden_;
  TemporaryFolder folder_;
};

TEST_F(GoldenDiagnosisTest, SaysTheFirstLayerAndToken) {
  GoldenArrays got = ComputeGolden(golden_, DType::kF32);
  EXPECT_FALSE(FirstHiddenState(golden_, got));
  got.at("short_hidden.2").mutable_data<float>()[0] += 1;
  Tensor& after_first = got.at("short_hidden.1");
  after_first.mutable_data<float>()[(after_first.dim(1) + 5) * after_first.dim(2) + 7] += 1;
  const auto first = FirstHiddenState(golden_, got);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->layer, 0);
  EXPECT_EQ(first->row, 1);
  EXPECT_EQ(first->token, 5);
}

TEST_F(GoldenDiagnosisTest, TriesNothingOnASoundFolder) { EXPECT_TRUE(Diagnose().tried.empty()); }

TEST_F(GoldenDiagnosisTest, NamesTheFaultOfTheLogits) {
  const ForwardModel sound(golden_.checkpoint, DType::kF32);
  const auto fault = std::ranges::find(KnownFaults(), "routed_scaling_factor", &KnownFault::name);
  ForwardModel faulty = WithFault(sound, {}, *fault);
  const Tensor ids = golden_.Expected("short_ids");
  const std::vector<int32_t> all = golden_.Ids("short_ids");
  const int64_t length = ids.dim(1), vocab = golden_.checkpoint.config().vocab_size;
  Tensor logits(DType::kF32, {2, length, vocab});
  for (int64_t r = 0; r < 2; ++r) {
    const Tensor own = faulty.Logits(std::span(all).subspan(static_cast<size_t>(r * length), static_cast<size_t>(length)));
    std::copy_n(own.data<float>(), length * vocab, logits.mutable_data<float>() + r * length * vocab);
  }
  Replace({{"short_ids", ids}, {"short_logits", logits}});
  const GoldenDiagnosis d = Diagnose();
  ASSERT_TRUE(d.cause);
  EXPECT_EQ(d.cause->name, "routed_scaling_factor");
  EXPECT_GE(d.tried.size(), 10u);
}

TEST_F(GoldenDiagnosisTest, KnowsAModuleThatIsFedBeforeTheNorm) {
  const Tensor ids = golden_.Expected("mid_ids");
  const Batch mid = ShiftedBatch(golden_.Ids("mid_ids"), 1);
  const Tensor before = MtpLogitsOf(golden_, DType::kF32, mid, MtpInput::kBeforeNorm), logits = golden_.Expected("mid_logits");
  const Arrays folder{{"mid_ids", ids},
                      {"mid_logits", logits},
                      {"mtp_before_norm.mid_logits_last16", golden_.Expected("mtp_before_norm.mid_logits_last16")}};
  Arrays faulty = folder, odd = folder;
  faulty["mid_mtp_logits"] = CopyOf(before.view().Rows(0, mid.length - 1), {1, mid.length - 1, before.dim(1)});
  odd["mid_mtp_logits"] =
      CopyOf(logits.view().Reshape({mid.length, before.dim(1)}).Rows(0, mid.length - 1), {1, mid.length - 1, before.dim(1)});
  Replace(faulty);
  GoldenDiagnosis d = Diagnose();
  ASSERT_EQ(d.tried.size(), 1u);
  ASSERT_TRUE(d.cause);
  EXPECT_EQ(d.cause->name, "mtp_before_norm");
  Replace(odd);
  d = Diagnose();
  EXPECT_EQ(d.tried.size(), 1u);
  EXPECT_FALSE(d.cause);
}

}  // namespace
}  // namespace fathom
