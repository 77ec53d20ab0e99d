#include <cstring>
#include <numeric>

#include "fathom/eval/forward.h"
#include "fathom/eval/golden.h"
#include "fathom/model/load.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

Tensor CopyOf(ConstView v, Shape shape) {
  Tensor t(v.dtype(), shape);
  std::memcpy(t.mutable_view().raw(), v.raw(), static_cast<size_t>(v.NumBytes()));
  return t;
}

Tensor ScalarOf(double x) {
  Tensor t(DType::kF64, {});
  *t.mutable_data<double>() = x;
  return t;
}

Tensor VectorOf(const std::vector<double>& x) {
  Tensor t(DType::kF64, {static_cast<int64_t>(x.size())});
  std::copy(x.begin(), x.end(), t.mutable_data<double>());
  return t;
}

// B sequences of T tokens each, every one a document.
Batch MakeBatch(std::span<const int32_t> ids, std::span<const int32_t> targets, int64_t rows, int64_t length) {
  Batch batch;
  batch.Clear(rows, length);
  for (int64_t r = 0; r < rows; ++r) batch.AddSegment(r * length, length, ids.data() + r * length, targets.data() + r * length, 1);
  batch.target_count = rows * length;
  return batch;
}

// From rows of T+1 ids: inputs [:, :-1], targets [:, 1:].
Batch ShiftedBatch(const std::vector<int32_t>& ids, int64_t rows) {
  const int64_t length = static_cast<int64_t>(ids.size()) / rows - 1;
  std::vector<int32_t> inputs, targets;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = ids.begin() + r * (length + 1);
    inputs.insert(inputs.end(), row, row + length);
    targets.insert(targets.end(), row + 1, row + length + 1);
  }
  return MakeBatch(inputs, targets, rows, length);
}

class Computation {
 public:
  Computation(const GoldenCase& golden, DType compute) : golden_(golden), config_(golden.checkpoint.config()), compute_(compute) {}

  GoldenArrays Run() {
    if (golden_.Has("short_ids")) Short();
    if (golden_.Has("mid_ids")) Mid();
    if (golden_.Has("long_ids")) Long();
    if (golden_.Has("train_losses")) Train();
    return std::move(got_);
  }

 private:
  void Put(const std::string& name, Tensor value) { got_.insert_or_assign(golden_.prefix + name, std::move(value)); }

  // Logits [T,V] of every token of a batch.
  Tensor Logits(const Batch& batch, const LayerObserver& observer) {
    std::vector<Segment> segments;
    for (const TokenRange& s : batch.segments) segments.push_back({s.begin, s.end, s.begin, s.end});
    return ForwardModel(golden_.checkpoint, compute_).Logits(batch.ids, batch.positions, segments, observer);
  }

  Batch Sequences(const std::string& name) {
    const auto ids = golden_.Ids(name);
    const Shape shape = golden_.ShapeOf(name);
    return MakeBatch(ids, ids, shape[0], shape[1]);
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
      Put("short_router_weights." + std::to_string(layer), CopyOf(ViewOf(static_cast<const float*>(s.moe.weights.data()), {batch.tokens(), k}), {batch.tokens(), k}));
    });
    Put("short_logits", CopyOf(logits, {batch.rows, batch.length, config_.vocab_size}));
  }

  void Mid() {
    const Batch batch = ShiftedBatch(golden_.Ids("mid_ids"), golden_.ShapeOf("mid_ids")[0]);
    Put("mid_logits", CopyOf(Logits(batch, {}), {batch.rows, batch.length, config_.vocab_size}));
    if (!golden_.Has("mid_loss")) return;
    TrainSession session(config_, Options(batch), CopyParams(golden_.checkpoint, DType::kF32));
    session.ZeroGradients();
    const double weight = static_cast<double>(batch.target_count);
    Put("mid_loss", ScalarOf(session.Gradients(batch, 1 / weight).main.loss / weight));
    for (const NamedWeight& w : ListParams(session.grads())) Put("grad." + w.name, CopyOf(w.weight->value, w.weight->value.shape()));
  }

  void Long() {
    const Batch batch = Sequences("long_ids");
    const Tensor logits = Logits(batch, {});
    const int64_t rows = golden_.ShapeOf("long_logits_last16")[1];
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
      if (!session) session = std::make_unique<TrainSession>(config_, Options(batch), CopyParams(golden_.checkpoint, DType::kF32));
      const StepReport report = session->Step(batch, 1e-3);
      losses.push_back(report.loss);
      norms.push_back(report.optimizer.raw_grad_norm);
    }
    Put("train_losses", VectorOf(losses));
    Put("train_grad_norms", VectorOf(norms));
  }

  TrainOptions Options(const Batch& batch) const {
    TrainOptions o;
    o.rows = batch.rows;
    o.length = batch.length;
    o.compute = compute_;
    return o;
  }

  const GoldenCase& golden_;
  const ModelConfig& config_;
  DType compute_;
  GoldenArrays got_;
};

}  // namespace

GoldenArrays ComputeGolden(const GoldenCase& golden, DType compute) { return Computation(golden, compute).Run(); }

}  // namespace fathom
