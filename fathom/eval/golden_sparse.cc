#include "fathom/eval/golden_arrays.h"
#include "fathom/model/load.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr float kFactor = 0.01F;  // of the indexer's loss in every golden

struct Stage {
  std::string name;
  bool lm_loss;
  IndexerTraining how;
};

// The report's warm-up, MaxText's (attention already sparse), and the sparse stage.
std::vector<Stage> Stages() {
  return {{"warmup", false, {kFactor, false, true}},
          {"warmup_maxtext", false, {kFactor, false, false}},
          {"sparse", true, {kFactor, true, false}}};
}

std::unique_ptr<TrainSession> Open(const GoldenCase& golden, DType compute, const Batch& batch, const Stage& stage) {
  TrainOptions o = OptionsFor(golden, batch, compute);
  o.lm_loss = stage.lm_loss;
  o.indexer = stage.how;
  if (!stage.lm_loss) o.trainable_mask = {".*indexer.*"};
  return std::make_unique<TrainSession>(golden.checkpoint.config(), o, CopyParams(golden.checkpoint, DType::kF32));
}

// Each layer's loss, a mean over tokens, and the gradients of the first batch.
void AddGradients(const Batch& batch, const std::string& loss_name, const std::string& grad_prefix, bool indexers_only,
                  TrainSession& session, GoldenArrays& got) {
  session.ZeroGradients();
  session.Gradients(batch, 1 / static_cast<double>(batch.target_count));
  const std::span<const double> sums = session.totals().indexer_kl;
  std::vector<double> kl(sums.begin(), sums.end());
  for (double& x : kl) x /= static_cast<double>(batch.tokens());
  got.insert_or_assign(loss_name, VectorOf(kl));
  for (const NamedWeight& w : ListParams(session.grads())) {
    const bool wanted = !indexers_only || w.spec->is_indexer();
    if (wanted) got.insert_or_assign(grad_prefix + w.spec->name, CopyOf(w.weight->value, w.weight->value.shape()));
  }
}

// The three losses of the `mid` tokens, without the language model's.
void AddLosses(const GoldenCase& golden, DType compute, GoldenArrays& got) {
  const Batch batch = ShiftedBatch(golden.Ids("mid_ids"), golden.ShapeOf("mid_ids")[0]);
  const std::map<std::string, std::string> names{
      {"warmup", "dense_warmup"}, {"warmup_maxtext", "dense_warmup_maxtext"}, {"sparse", "sparse"}};
  for (Stage stage : Stages()) {
    stage.lm_loss = false;
    const std::string& name = names.at(stage.name);
    if (golden.Has("indexer_loss." + name)) {
      AddGradients(batch, "indexer_loss." + name, "indexer_grad." + name + ".", true, *Open(golden, compute, batch, stage), got);
    }
  }
}

// Losses, mean KL and gradient norm of AdamW steps at a constant rate, from train_ids [S,B,T+1].
void AddSteps(const GoldenCase& golden, DType compute, const Stage& stage, GoldenArrays& got) {
  const auto ids = golden.Ids("train_ids");
  const Shape shape = golden.ShapeOf("train_ids");
  const auto per_step = static_cast<size_t>(shape[1] * shape[2]);
  const auto batch_of = [&](int64_t step) {
    return ShiftedBatch(std::span(ids).subspan(static_cast<size_t>(step) * per_step, per_step), shape[1]);
  };
  const Batch first = batch_of(0);
  const Tensor logits = BatchLogits(golden, compute, first, stage.how, {});
  got.insert_or_assign(stage.name + ".logits", CopyOf(logits, {first.rows, first.length, golden.checkpoint.config().vocab_size}));
  const auto session = Open(golden, compute, first, stage);
  AddGradients(first, stage.name + ".kl", stage.name + ".grad.", !stage.lm_loss, *session, got);
  Tensor steps(DType::kF64, {shape[0], 4});
  for (int64_t step = 0; step < shape[0]; ++step) {
    const StepReport r = session->Step(batch_of(step), 1e-3);
    const double row[] = {r.loss, r.lm_loss, r.indexer_kl, r.optimizer.raw_grad_norm};
    std::copy_n(row, 4, steps.mutable_data<double>() + step * 4);
  }
  got.insert_or_assign(stage.name + ".steps", std::move(steps));
}

}  // namespace

void AddSparseTraining(const GoldenCase& golden, DType compute, GoldenArrays& got) {
  if (golden.Has("mid_ids")) AddLosses(golden, compute, got);
  for (const Stage& stage : Stages()) {
    if (golden.Has(stage.name + ".steps")) AddSteps(golden, compute, stage, got);
  }
}

}  // namespace fathom
