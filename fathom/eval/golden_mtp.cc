#include "fathom/eval/golden_arrays.h"
#include "fathom/model/load.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr double kFactor = 0.1;                      // of the loss in these arrays
constexpr int64_t kScratchSpace = int64_t{8} << 30;  // address space; memory is taken where it is touched

class MtpComputation {
 public:
  MtpComputation(const GoldenCase& golden, const Batch& mid, DType compute, GoldenArrays& got)
      : golden_(golden), mid_(mid), compute_(compute), got_(got) {}

  void Run() {
    const int64_t length = mid_.length - 1, vocab = golden_.checkpoint.config().vocab_size;  // the last position has no token t+1
    {
      TrainSession session = Session(MtpInput::kAfterNorm);
      Put("mid_mtp_logits", CopyOf(Logits(session, MtpInput::kAfterNorm).view().Rows(0, length), {1, length, vocab}));
      Put("mid_mtp_loss", ScalarOf(Gradients(session)));
      for (const NamedWeight& w : ListParams(session.grads()))
        Put("grad_with_mtp." + w.spec->name, CopyOf(w.weight->value, w.weight->value.shape()));
    }
    TrainSession session = Session(MtpInput::kBeforeNorm);
    const int64_t rows = golden_.ShapeOf("mtp_before_norm.mid_logits_last16")[1];
    Put("mtp_before_norm.mid_logits_last16",
        CopyOf(Logits(session, MtpInput::kBeforeNorm).view().Rows(length - rows, length), {1, rows, vocab}));
    Put("mtp_before_norm.mid_loss", ScalarOf(Gradients(session)));
  }

  TrainSession Session(MtpInput input) const {
    TrainOptions o = OptionsFor(golden_, mid_, compute_);
    o.mtp = {.modules = 1, .input = input};
    return TrainSession(golden_.checkpoint.config(), o, CopyParams(golden_.checkpoint, DType::kF32));
  }

  Tensor Logits(TrainSession& session, MtpInput input) const {
    Arena saved(kScratchSpace), scratch(kScratchSpace);
    Ctx ctx{saved, scratch, compute_};
    Tensor logits(DType::kF32, {mid_.tokens(), golden_.checkpoint.config().vocab_size});
    session.decoder().MtpLogits(ctx, session.params(), session.Slice(mid_, 0, mid_.rows), input, 1, logits.mutable_view());
    return logits;
  }

 private:
  void Put(const std::string& name, Tensor value) {
    if (golden_.Has(name)) got_.insert_or_assign(golden_.prefix + name, std::move(value));
  }

  // Leaves the gradients of the whole loss in the session; returns the module's part of the loss.
  double Gradients(TrainSession& session) const {
    session.ZeroGradients();
    const double scale = kFactor / MtpWeight(session.Slice(mid_, 0, mid_.rows), 1);
    return scale * session.Gradients(mid_, 1 / static_cast<double>(mid_.target_count), scale).mtp.loss;
  }

  const GoldenCase& golden_;
  const Batch& mid_;
  DType compute_;
  GoldenArrays& got_;
};

}  // namespace

void AddMtp(const GoldenCase& golden, DType compute, const Batch& mid, GoldenArrays& got) {
  MtpComputation(golden, mid, compute, got).Run();
}

Tensor MtpLogitsOf(const GoldenCase& golden, DType compute, const Batch& mid, MtpInput input) {
  GoldenArrays none;
  const MtpComputation computation(golden, mid, compute, none);
  TrainSession session = computation.Session(input);
  return computation.Logits(session, input);
}

}  // namespace fathom
