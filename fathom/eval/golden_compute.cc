#include "fathom/eval/forward.h"
#include "fathom/eval/golden.h"
#include "fathom/eval/golden_arrays.h"
#include "fathom/model/load.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

class Computation {
 public:
  Computation(const GoldenCase& golden, DType compute) : golden_(golden), config_(golden.checkpoint.config()), compute_(compute) {}

  GoldenArrays Run() {
    if (golden_.Has("short_ids")) Short();
    if (golden_.Has("mid_ids")) Mid();
    if (golden_.Has("long_ids")) Long();
    if (golden_.Has("train_losses")) Train();
    if (config_.has_indexer()) AddSparseTraining(golden_, compute_, got_);
    return std::move(got_);
  }

 private:
  void Put(const std::string& name, Tensor value) { got_.insert_or_assign(golden_.prefix + name, std::move(value)); }

  // Logits [T,V] of every token of a batch.
  Tensor Logits(const Batch& batch, const LayerObserver& observer) { return BatchLogits(golden_, compute_, batch, {}, observer); }

  Batch Sequences(const std::string& name) {
    const auto ids = golden_.Ids(name);
    const Shape shape = golden_.ShapeOf(name);
    return MakeBatch(ids, ids, shape[0], shape[1]);
  }

  // What the indexer chose, [1,T,T] of 0 and 1.
  Tensor TopMask(const Batch& batch, std::span<const int32_t> chosen) const {
    const int64_t t = batch.length;
    Tensor mask(DType::kU8, {batch.rows, t, t});
    uint8_t* m = mask.mutable_data<uint8_t>();
    for (int64_t i = 0; i < batch.tokens(); ++i) {
      if (chosen.empty()) std::fill(m + i * t, m + i * t + i % t + 1, 1);
    }
    const int64_t k = std::ssize(chosen) / batch.tokens();
    for (int64_t j = 0; j < std::ssize(chosen); ++j) {
      const int32_t key = chosen[static_cast<size_t>(j)];
      if (key >= 0) m[j / k * t + key % t] = 1;
    }
    return mask;
  }

  void Short() {
    const Batch batch = Sequences("short_ids");
    const Shape hidden{batch.rows, batch.length, config_.hidden_size};
    const Tensor logits = Logits(batch, [&](int64_t layer, ConstView h, const Block::Saved& s) {
      Put("short_hidden." + std::to_string(layer + 1), CopyOf(h, hidden));
      if (layer < 0 || !config_.is_moe_layer(layer)) return;
      const int64_t k = config_.num_experts_per_tok;
      Tensor ids(DType::kI64, {batch.tokens(), k});
      std::copy(s.moe.ids.begin(), s.moe.ids.end(), ids.mutable_data<int64_t>());
      Put("short_router_ids." + std::to_string(layer), std::move(ids));
      Put("short_router_weights." + std::to_string(layer),
          CopyOf(ViewOf(static_cast<const float*>(s.moe.weights.data()), {batch.tokens(), k}), {batch.tokens(), k}));
    });
    Put("short_logits", CopyOf(logits, {batch.rows, batch.length, config_.vocab_size}));
  }

  void Mid() {
    const Batch batch = ShiftedBatch(golden_.Ids("mid_ids"), golden_.ShapeOf("mid_ids")[0]);
    const Tensor logits = Logits(batch, [&](int64_t layer, ConstView, const Block::Saved& s) {
      if (layer >= 0 && config_.has_indexer()) Put("mid_top_mask." + std::to_string(layer), TopMask(batch, s.attention.chosen));
    });
    Put("mid_logits", CopyOf(logits, {batch.rows, batch.length, config_.vocab_size}));
    if (golden_.Has("mid_mtp_logits")) AddMtp(golden_, compute_, batch, got_);
    if (!golden_.Has("mid_loss")) return;
    TrainSession session(config_, OptionsFor(golden_, batch, compute_), CopyParams(golden_.checkpoint, DType::kF32));
    session.ZeroGradients();
    const double weight = static_cast<double>(batch.target_count);
    Put("mid_loss", ScalarOf(session.Gradients(batch, 1 / weight, 0).main.loss / weight));
    for (const NamedWeight& w : ListParams(session.grads())) Put("grad." + w.spec->name, CopyOf(w.weight->value, w.weight->value.shape()));
  }

  void Long() {
    const Batch batch = Sequences("long_ids");
    const Tensor logits = Logits(batch, {});
    const int64_t rows = golden_.ShapeOf(golden_.prefix + "long_logits_last16")[1];
    Put("long_logits_last16", CopyOf(logits.view().Rows(batch.tokens() - rows, batch.tokens()), {1, rows, config_.vocab_size}));
  }

  // Ten AdamW steps at a constant rate, as golden.json's "train" says.
  void Train() {
    const auto ids = golden_.Ids("train_ids");
    const Shape shape = golden_.ShapeOf("train_ids");
    const int64_t per_step = shape[1] * shape[2];
    std::vector<double> losses, norms;
    std::unique_ptr<TrainSession> session;
    for (int64_t step = 0; step < shape[0]; ++step) {
      const Batch batch = ShiftedBatch({ids.begin() + step * per_step, ids.begin() + (step + 1) * per_step}, shape[1]);
      if (!session)
        session =
            std::make_unique<TrainSession>(config_, OptionsFor(golden_, batch, compute_), CopyParams(golden_.checkpoint, DType::kF32));
      const StepReport report = session->Step(batch, 1e-3);
      losses.push_back(report.loss);
      norms.push_back(report.optimizer.raw_grad_norm);
    }
    Put("train_losses", VectorOf(losses));
    Put("train_grad_norms", VectorOf(norms));
  }

  const GoldenCase& golden_;
  const ModelConfig& config_;
  DType compute_;
  GoldenArrays got_;
};

}  // namespace

GoldenArrays ComputeGolden(const GoldenCase& golden, DType compute) { return Computation(golden, compute).Run(); }

}  // namespace fathom
