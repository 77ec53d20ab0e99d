// Steps on meshes of ranks that are threads, against the same steps on one rank.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "fathom/base/rng.h"
#include "fathom/data/synthetic.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/testing/close.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

using Words = std::vector<std::string>;

constexpr int64_t kRows = 4, kLength = 16;
constexpr int kSteps = 3;
constexpr double kRate = 5e-3;

Words Joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

RunConfig Flags(const Words& words) {
  return RunConfig::Resolve(Joined({"model_name=deepseek3-tiny",
                                    "override_model_config=true",
                                    "vocab_size=64",
                                    "base_emb_dim=32",
                                    "base_num_decoder_layers=2",
                                    "first_num_dense_layers=1",
                                    "base_num_query_heads=4",
                                    "base_num_kv_heads=4",
                                    "q_lora_rank=12",
                                    "kv_lora_rank=16",
                                    "qk_nope_head_dim=6",
                                    "qk_rope_head_dim=4",
                                    "v_head_dim=6",
                                    "base_mlp_dim=24",
                                    "base_moe_mlp_dim=8",
                                    "num_experts=8",
                                    "num_experts_per_tok=2",
                                    "n_routing_groups=4",
                                    "topk_routing_group=2",
                                    "rope_type=default",
                                    "mtp_num_layers=1",
                                    "dtype=float32",
                                    "adam_eps=1e-3",
                                    "gradient_clipping_threshold=0.5",
                                    "ici_fsdp_parallelism=1",
                                    "steps=3",
                                    "base_output_directory=unused",
                                    "run_name=unused",
                                    fmt::format("max_target_length={}", kLength)},
                                   words));
}

// Rows [begin, end) of a step's batch, of few tokens: each has a document, most a shorter one, and padding.
Batch RowsOf(int64_t begin, int64_t end, int step) {
  Batch batch;
  batch.Clear(end - begin, kLength);
  for (int64_t row = begin; row < end; ++row) {
    const CounterRng rng(static_cast<uint64_t>(step), static_cast<uint64_t>(row));
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i <= kLength; ++i) tokens.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(i), 4)));
    const int64_t at = (row - begin) * kLength, cut = 8 + row;
    batch.AddSegment(at, cut, tokens.data(), tokens.data() + 1, 1);
    if (cut + 3 < kLength) batch.AddSegment(at + cut, 3, tokens.data() + cut, tokens.data() + cut + 1, 2);
  }
  return batch;
}

struct Outcome {
  std::vector<double> numbers;                       // of the reports
  std::map<std::string, std::vector<float>> values;  // of the parameters, whole
  int64_t dropped = 0;
  double accepted = 0;
};

// Lays a rank's part of each parameter into the whole.
void Collect(TrainSession& session, Outcome& outcome) {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  for (const auto& [param, w] : ListParams(session.params())) {
    if (param->is_copy()) continue;  // in the memory of its original
    const Region part = session.placement().Kept(*param), all = WholeOf(param->shape);
    std::vector<float>& whole = outcome.values[param->name];
    whole.resize(static_cast<size_t>(param->shape.NumElements()));
    Cast(w->value.view().Reshape({part.rows(), part.columns()}), PartOf(ViewOf(whole.data(), {all.rows(), all.columns()}), part));
  }
}

Outcome TrainOn(const Words& words, int ranks) {
  const RunConfig config = Flags(Joined(words, {fmt::format("per_device_batch_size={}", kRows / ranks)}));
  const MeshSizes sizes = ReadMesh(config, ranks);
  Outcome outcome;
  RunRanks(ranks, [&](const Comm& world) {
    const TrainOptions options = ReadTrainOptions(config, ranks == 1 ? Mesh() : Mesh(world, sizes));
    LoadedModel model = LoadModel(config, options, {});
    TrainSession session(model.config, options, std::move(model.params));
    const Mesh& mesh = options.mesh;
    const int64_t each = kRows / mesh.row_ranks(), first = mesh.row_rank() * each;
    for (int step = 0; step < kSteps; ++step) {
      const StepReport r = session.Step(RowsOf(first, first + each, step), kRate);
      if (!mesh.is_first()) continue;
      outcome.numbers.insert(outcome.numbers.end(), {r.loss, r.optimizer.raw_grad_norm, r.optimizer.param_norm, r.balance_loss,
                                                     r.indexer_loss, r.max_attention_logit.value_or(0)});
      for (const int64_t dropped : session.totals().dropped) outcome.dropped += dropped;
    }
    const LossSums eval = session.Evaluate(RowsOf(first, first + each, kSteps));
    if (mesh.is_first()) {
      outcome.numbers.insert(outcome.numbers.end(), {eval.main.loss, eval.mtp_accepted, eval.mtp_compared});
      outcome.accepted = eval.mtp_accepted;
    }
    Collect(session, outcome);
  });
  return outcome;
}

void ExpectSame(const Outcome& got, const Outcome& want, const std::string& what) {
  ASSERT_EQ(got.numbers.size(), want.numbers.size());
  for (size_t i = 0; i < want.numbers.size(); ++i)
    EXPECT_TRUE(std::fabs(got.numbers[i] - want.numbers[i]) <= 2e-5 * std::fabs(want.numbers[i]))
        << what << ", number " << i << ": " << got.numbers[i] << ", one rank " << want.numbers[i];
  EXPECT_EQ(got.dropped, want.dropped) << what;
  for (const auto& [name, values] : want.values)
    EXPECT_TRUE(RelativeL2(got.values.at(name), ToDoubles(values), 1e-5)) << what << ", " << name;
}

const Words kAxisFlags = {"data", "fsdp", "expert", "tensor", "context", "pipeline"};

// Every axis alone, and products.
void ExpectSameOnEveryMesh(const Words& words) {
  const Outcome one = TrainOn(words, 1);
  const auto check = [&](const Words& axes) {
    Words flags = words;
    for (const std::string& axis : axes) flags.push_back(fmt::format("ici_{}_parallelism=2", axis));
    ExpectSame(TrainOn(flags, 1 << axes.size()), one, fmt::format("{} on {}", fmt::join(words, " "), fmt::join(axes, " x ")));
  };
  for (const std::string& axis : kAxisFlags) check({axis});
  check({"fsdp", "tensor"});
  check({"context", "pipeline"});
  check({"expert", "context"});
}

// A threshold that every head is beyond, in every step.
const Words kClipping = {"use_qk_clip=true", "qk_clip_threshold=0.05"};

TEST(MeshSession, ClipsQueriesAndKeysAsOneRank) {
  for (const Words& queries : {Words{}, Words{"q_lora_rank=0"}}) {
    const std::string name = "model.layers.1.self_attn.kv_b_proj.weight";
    const Outcome open = TrainOn(queries, 1), clipped = TrainOn(Joined(queries, kClipping), 1);
    EXPECT_FALSE(RelativeL2(clipped.values.at(name), ToDoubles(open.values.at(name)), 0.1));
    ExpectSameOnEveryMesh(Joined(queries, kClipping));
  }
}

// Ranks that share a sequence have to agree on which of its tokens an expert takes.
TEST(MeshSession, DropsTokensAsOneRank) {
  const Words words = {"sparse_matmul=false", "capacity_factor=0.75"};
  EXPECT_GT(TrainOn(words, 1).dropped, 0);
  ExpectSameOnEveryMesh(words);
}

TEST(MeshSession, ComparesTheModulesPredictionsAsOneRank) {
  const Words words = {"eval_interval=1", "mtp_num_layers=2", "mtp_eval_target_module=2", "vocab_size=4"};
  EXPECT_GT(TrainOn(words, 1).accepted, 0);
  ExpectSameOnEveryMesh(words);
}

TEST(MeshSession, CountsPaddingAsOneRank) {
  const Words words = {"compat=maxtext", "load_balance_loss_weight=0.1"};
  ExpectSameOnEveryMesh(words);
  ExpectSameOnEveryMesh(Joined(words, {"use_indexer=true", "indexer_head_dim=8", "indexer_n_heads=2", "indexer_topk=4",
                                       "indexer_loss_scaling_factor=1", "indexer_sparse_training=true"}));
}

// Numbers of a model's parameters: all, those of no layer, those of the last two layers, those of experts.
struct Sizes {
  double all = 0, root = 0, last = 0, experts = 0;
};
Sizes SizesOf(const ModelSpec& spec, int64_t layers) {
  Sizes s;
  for (const ParamSpec& param : spec) {
    const auto n = static_cast<double>(param.shape.NumElements());
    s.all += n;
    if (param.layer < 0) s.root += n;
    if (param.layer >= layers - 2) s.last += n;
    if (param.is_expert()) s.experts += n;
  }
  return s;
}

// Bytes that a rank of two along each axis sends in a step of `tokens` a rank, in F32: the table of docs/ranks.md.
double TheoryOf(Axis axis, const ModelConfig& c, double tokens) {
  const Sizes p = SizesOf(ModelSpec(c), c.num_hidden_layers);
  const auto layers = static_cast<double>(c.num_hidden_layers), moe = layers - static_cast<double>(c.first_k_dense_replace);
  const auto d = static_cast<double>(c.hidden_size), chosen = static_cast<double>(c.num_experts_per_tok);
  const auto latent = static_cast<double>(c.kv_lora_rank + c.qk_rope_head_dim), queries = static_cast<double>(c.q_lora_rank);
  constexpr double kOther = 0.5, kBytes = 4;  // (n - 1) / n
  const auto sum = [&](double numbers) { return 2 * kOther * kBytes * numbers; };
  switch (axis) {
    case Axis::kData:
      return sum(p.all);
    case Axis::kFsdp:
      return kOther * kBytes * (3 * p.all - p.root - p.last);
    case Axis::kExpert:
      return moe * tokens * chosen * kOther * (5 * d + 3) * kBytes + sum(p.all - p.experts);
    case Axis::kTensor:
      return sum(tokens * (layers * (3 * d + queries + latent) + moe * chosen));
    case Axis::kContext:
      return layers * tokens * latent * 2 * kBytes + sum(p.all);
    case Axis::kStage:
      return tokens * d * kBytes + sum(p.root);  // of the first and of the last stage
  }
  return 0;
}

TEST(MeshSession, SendsWhatTheoryAsks) {
  const Words words = {"base_emb_dim=64",         "vocab_size=256",        "base_num_decoder_layers=4", "mtp_num_layers=0",
                       "shared_experts=1",        "max_target_length=64",  "base_moe_mlp_dim=32",       "base_mlp_dim=96",
                       "per_device_batch_size=4", "num_experts_per_tok=4", "topk_routing_group=4"};
  for (const Axis axis : kAxes) {
    const RunConfig config =
        Flags(Joined(words, {fmt::format("ici_{}_parallelism=2", axis == Axis::kStage ? "pipeline" : AxisName(axis))}));
    std::mutex mutex;
    double sent = 0, theory = 0;
    RunRanks(2, [&](const Comm& world) {
      const TrainOptions options = ReadTrainOptions(config, Mesh(world, ReadMesh(config, 2)));
      LoadedModel model = LoadModel(config, options, {});
      TrainSession session(model.config, options, std::move(model.params));
      SyntheticSource source({options.rows, options.length, model.config.vocab_size, 3, static_cast<int>(options.mesh.row_rank())});
      Batch batch;
      ASSERT_TRUE(source.Next(&batch));
      const auto before = options.mesh.comm(axis).traffic().bytes_sent;
      session.Step(batch, kRate);
      const std::scoped_lock lock(mutex);
      sent += static_cast<double>(options.mesh.comm(axis).traffic().bytes_sent - before) / 2;
      theory = TheoryOf(axis, model.config, static_cast<double>(batch.tokens() / options.mesh.size(Axis::kContext)));
    });
    EXPECT_TRUE(std::fabs(sent / theory - 1) <= 0.05)
        << AxisName(axis) << ": " << sent << " bytes, theory asks " << theory << ": " << sent / theory;
  }
}

// The draws belong to the elements of the whole, whichever rank keeps its rows. Rounding of the sums over ranks flips few of them.
TEST(MeshSession, RoundsByChanceAsOneRank) {
  const Words words = Joined(kClipping, {"weight_dtype=bfloat16", "stochastic_rounding=true"});
  const Outcome one = TrainOn(words, 1);
  for (const char* axis : {"data", "fsdp"}) {
    const Outcome two = TrainOn(Joined(words, {fmt::format("ici_{}_parallelism=2", axis)}), 2);
    int64_t other = 0, all = 0;
    for (const auto& [name, values] : one.values) {
      const std::vector<float>& got = two.values.at(name);
      all += std::ssize(values);
      for (size_t i = 0; i < values.size(); ++i) other += got[i] != values[i] ? 1 : 0;
    }
    EXPECT_LT(static_cast<double>(other), 1e-3 * static_cast<double>(all)) << axis;
  }
}

}  // namespace
}  // namespace fathom
