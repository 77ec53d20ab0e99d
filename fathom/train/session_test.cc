// A step must not depend on how its rows are cut into micro-batches, the MTP modules' part included.
#include "fathom/train/session.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/model/load.h"
#include "fathom/testing/close.h"
#include "fathom/train/flops.h"

namespace fathom {
namespace {

// Four rows; documents of different lengths, so that rows weigh differently, and padding.
Batch MixedBatch(int64_t vocab) {
  const CounterRng rng(4, HashName("tokens"));
  Batch batch;
  batch.Clear(4, 20);
  uint64_t drawn = 0;
  for (const auto& [begin, n] : {std::pair<int64_t, int64_t>{0, 20}, {20, 7}, {27, 2}, {40, 1}, {41, 12}, {60, 19}}) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i <= n; ++i) tokens.push_back(static_cast<int32_t>(rng.Below(drawn++, static_cast<uint64_t>(vocab))));
    batch.AddSegment(begin, n, tokens.data(), tokens.data() + 1, 1);
  }
  return batch;
}

struct Result {
  StepReport report;
  std::vector<float> gradients;
};

Result StepInMicroBatches(int64_t rows) {
  const Checkpoint checkpoint = Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3");
  TrainOptions options;
  options.rows = rows;
  options.length = 20;
  options.compute = DType::kF32;
  options.mtp.modules = 1;
  options.mtp_factor = 0.3;
  DecoderParams params = CopyParams(checkpoint, DType::kF32);
  ShareEmbeddingAndHead(params);
  TrainSession session(checkpoint.config(), options, std::move(params));
  Result result{session.Step(MixedBatch(checkpoint.config().vocab_size), 0), {}};
  for (const NamedWeight& w : ListParams(session.grads())) {
    result.gradients.insert(result.gradients.end(), w.weight->value.data<float>(),
                            w.weight->value.data<float>() + w.weight->value.NumElements());
  }
  return result;
}

TEST(TrainSession, MicroBatchesEqualOneBatch) {
  const Result whole = StepInMicroBatches(4);
  EXPECT_GT(whole.report.mtp_loss, 0);
  EXPECT_EQ(whole.report.sums.mtp.weight, 19 + 6 + 1 + 0 + 11 + 18);
  EXPECT_NEAR(whole.report.mtp_loss, 0.3 * whole.report.sums.mtp.loss / whole.report.sums.mtp.weight, 1e-9);
  for (const int64_t rows : {1, 2, 3}) {
    const Result cut = StepInMicroBatches(rows);
    EXPECT_NEAR(cut.report.loss, whole.report.loss, 1e-6);
    EXPECT_NEAR(cut.report.mtp_loss, whole.report.mtp_loss, 1e-6);
    EXPECT_TRUE(RelativeL2(cut.gradients, ToDoubles(whole.gradients), 1e-6)) << rows << " rows";
  }
}

// A real team, far larger than the cores: work is cut finer, and the bits are those of one thread.
TEST(TrainSession, ManyThreadsHaveTheBitsOfOne) {
  SetThreads(1);
  const Result one = StepInMicroBatches(4);
  SetThreads(64);
  const Result many = StepInMicroBatches(4);
  SetThreads(0);
  EXPECT_EQ(many.report.loss, one.report.loss);
  EXPECT_EQ(many.gradients, one.gradients);
}

// One step of full rows, recorded: a batch without padding does what the program counts.
TEST(TrainSession, ATraceHasTheStepsArithmetic) {
  const Checkpoint checkpoint = Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3");
  TrainOptions options;
  options.rows = 2;
  options.length = 64;
  TrainSession session(checkpoint.config(), options, CopyParams(checkpoint, DType::kF32));
  Batch batch;
  batch.Clear(2, 64);
  const std::vector<int32_t> ids(64, 5);
  for (const int64_t begin : {0, 64}) batch.AddSegment(begin, 64, ids.data(), ids.data(), 1);
  session.Step(batch, 1e-3);
  Trace trace;
  {
    const TraceScope scope(trace);
    const TraceSlice slice("step");
    session.Step(batch, 1e-3);
  }
  double flops = 0;
  for (const Trace::Slice& s : trace.slices()) flops += s.flops;
  const double counted = TrainFlopsPerToken(checkpoint.config(), options) * 128;
  EXPECT_NEAR(flops / counted, 1, 0.01);  // which takes attention to see half of all pairs, without the half of the diagonal
  const Trace::Slice& step = trace.slices()[0];
  EXPECT_GE(static_cast<double>(step.inside), 0.9 * static_cast<double>(step.end - step.begin));
  for (const Trace::Slice& s : trace.slices()) EXPECT_TRUE(s.thread > 0 || s.inside <= s.end - s.begin) << s.name;
}

// What QK-clip is told, and what it does with a rate of 0: nothing else moves then.
struct Clipping {
  TrainOptions options;
  std::vector<float> first, second;  // the largest scores [layers*H] of the step that clips and of the one after it
  double param_norm = 0, norm_after = 0;
};
Clipping ClipTwice(const std::string& model, double threshold, int64_t rows, Remat remat, int64_t mtp = 0,
                   ChosenForm form = ChosenForm::kCheapest) {
  const Checkpoint checkpoint = Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / model);
  Clipping c;
  c.options.rows = rows;
  c.options.length = 20;
  c.options.compute = DType::kF32;
  c.options.remat = remat;
  c.options.mtp.modules = mtp;
  c.options.qk_clip = threshold;
  c.options.layers.max_logits = true;
  c.options.layers.chosen_form = form;
  DecoderParams params = CopyParams(checkpoint, DType::kF32);
  if (mtp > 0) ShareEmbeddingAndHead(params);
  TrainSession session(checkpoint.config(), c.options, std::move(params));
  const Batch batch = MixedBatch(checkpoint.config().vocab_size);
  const auto largest = [&] { return std::vector<float>(session.totals().max_logits.begin(), session.totals().max_logits.end()); };
  const StepReport report = session.Step(batch, 0);
  c.first = largest();
  EXPECT_EQ(report.max_attention_logit, std::ranges::max(c.first));
  c.param_norm = report.optimizer.param_norm;
  c.norm_after = session.Step(batch, 0).optimizer.param_norm;
  c.second = largest();
  return c;
}

TEST(TrainSession, MaxLogitsAreOfTheWholeBatch) {
  const Clipping whole = ClipTwice("golden/v3", 1e9, 4, Remat::kNone, 1);
  for (const float x : whole.first) EXPECT_TRUE(std::isfinite(x));
  EXPECT_TRUE(SameBits(whole.second, whole.first));  // nothing was clipped
  for (const Remat remat : {Remat::kNone, Remat::kMinimal, Remat::kFull}) {
    for (const int64_t rows : {1, 3})
      EXPECT_TRUE(Close(ClipTwice("golden/v3", 1e9, rows, remat, 1).first, ToDoubles(whole.first), 1e-5, 1e-5));
  }
}

// The first layer's input stays, so that its scores are brought to the threshold: with and without a query latent, over all keys and over
// chosen ones in both forms.
TEST(TrainSession, QkClipBringsScoresToTheThreshold) {
  const std::pair<std::string, ChosenForm> cases[] = {
      {"golden/v2-lite", {}}, {"golden/v3", {}}, {"maxtext/v32", ChosenForm::kAbsorbed}, {"maxtext/v32", ChosenForm::kShared}};
  for (const auto& [model, form] : cases) {
    const Clipping open = ClipTwice(model, 1e9, 4, Remat::kMinimal, 0, form);
    const auto heads = static_cast<size_t>(Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / model).config().num_attention_heads);
    const double threshold = 0.5 * std::ranges::min(std::span(open.first).first(heads));
    ASSERT_GT(threshold, 0) << model;
    const Clipping clipped = ClipTwice(model, threshold, 2, Remat::kFull, 0, form);
    for (size_t h = 0; h < heads; ++h) EXPECT_NEAR(clipped.second[h], threshold, 1e-4 * threshold) << model;
    EXPECT_LT(clipped.param_norm, open.param_norm);
    EXPECT_NEAR(clipped.param_norm, clipped.norm_after, 0.05 * (open.param_norm - clipped.param_norm)) << model;
  }
}

TEST(TrainSession, QkClipNeedsQueriesAndKeysThatAreTrained) {
  const Checkpoint checkpoint = Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3");
  for (const char* mask : {".*mlp.*", ".*kv_b_proj.*"}) {
    TrainOptions options{.rows = 4, .length = 20, .qk_clip = 1, .trainable_mask = {mask}};
    EXPECT_THROW(TrainSession(checkpoint.config(), options, CopyParams(checkpoint, DType::kF32)), Error) << mask;
  }
}

TEST(TrainSession, AGradientThatIsNotFiniteChangesNothing) {
  const Checkpoint checkpoint = Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3");
  TrainOptions options;
  options.rows = 4;
  options.length = 20;
  options.compute = DType::kF32;
  options.bias_update_rate = 0.5;
  TrainSession session(checkpoint.config(), options, CopyParams(checkpoint, DType::kF32));
  const auto biases = [&] {
    std::vector<float> values;
    for (const BlockParams& layer : session.params().layers) {
      const Tensor& bias = layer.moe.e_score_correction_bias.value;
      if (!bias.empty()) values.insert(values.end(), bias.data<float>(), bias.data<float>() + bias.NumElements());
    }
    return values;
  };
  const Batch batch = MixedBatch(checkpoint.config().vocab_size);
  const std::vector<float> before = biases();
  float& weight = *session.params().norm.value.mutable_data<float>();
  const float value = std::exchange(weight, std::numeric_limits<float>::quiet_NaN());
  EXPECT_FALSE(session.Step(batch, 1e-3).optimizer.applied);
  EXPECT_EQ(biases(), before);
  weight = value;
  EXPECT_TRUE(session.Step(batch, 1e-3).optimizer.applied);
  EXPECT_NE(biases(), before);
}

}  // namespace
}  // namespace fathom
