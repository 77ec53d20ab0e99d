#include "fathom/train/loop.h"

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/base/folder_lock.h"
#include "fathom/base/log.h"
#include "fathom/base/trace_window.h"
#include "fathom/machine/limits.h"
#include "fathom/train/async_saver.h"
#include "fathom/train/checkpoints.h"
#include "fathom/train/expert_metrics.h"
#include "fathom/train/flops.h"
#include "fathom/train/memory.h"
#include "fathom/train/metrics.h"
#include "fathom/train/rank_report.h"
#include "fathom/train/run_journal.h"
#include "fathom/train/run_start.h"
#include "fathom/train/signals.h"
#include "fathom/train/sources.h"
#include "fathom/train/step_log.h"
#include "fathom/train/tensorboard.h"
#include "fathom/train/text_samples.h"

namespace fathom {
namespace {

constexpr int64_t kMostSkipped = 5;  // steps in a row without a finite gradient

Json CountsJson(const SampleCounts& c) {
  return {{"read", c.read}, {"truncated", c.truncated}, {"too_long", c.too_long}, {"without_target", c.without_target}, {"bad", c.bad}};
}

class Run {
 public:
  Run(const RunConfig& config, const Mesh& mesh)
      : options_(ReadTrainOptions(config, mesh)),
        resume_(FindResumePoint(options_)),
        planned_(PlannedModel(config, options_, resume_)),
        sources_(OpenSources(CheckedFlags(config, planned_), options_, planned_)),
        loaded_(LoadStart(config, options_, resume_)),
        session_(loaded_.config, options_, std::move(loaded_.params)),
        first_step_(resume_ ? resume_->step + 1 : 0),
        done_(first_step_ - 1),
        flops_per_token_(TrainFlopsPerToken(loaded_.config, options_)),
        step_log_(options_, first_step_),
        trace_(TraceOf(config, options_, first_step_)) {
    WarnOfIdleIndexers(loaded_, options_);
    if (is_first()) {
      CheckDisk(config);
      lock_.emplace(RunFolder(options_), "run " + options_.run_name);
    }
    LogPerRank(config, options_);
    if (resume_) Resume();
    if (is_first()) OpenSinks(config);
    read_.Note("bytes_read", loaded_.bytes_read);
    peak_gflops_ = QuickProductRate(options_.compute);
    if (!is_first()) return;
    if (options_.samples.period > 0) samples_.emplace(options_, first_step_, session_, loaded_.config, sources_);
    journal_.emplace(config, options_, first_step_);
    journal_->SetModel(loaded_.config, SessionMemory(session_, options_));
    journal_->SetMachine(peak_gflops_);
  }

  // Throws what stops the run, once the last complete step is saved.
  int Loop() {
    const StopSignals signals;
    try {
      const int code = Steps(signals);
      EndJournal(code, why_);
      return code;
    } catch (const std::exception& error) {
      SaveBeforeError();
      EndJournal(static_cast<int>(ErrorCode::kFailed), error.what());
      throw;
    }
  }

  // Steps are those of the whole run; tokens and speed are of this process. Collective.
  Json Summary() {
    read_.Note("bytes_tokenised", sources_.bytes_tokenised());
    Json summary = {{"run_name", options_.run_name},
                    {"steps", done_ + 1},
                    {"loss", report_.loss},
                    {"eval_loss", eval_loss_ ? Json(*eval_loss_) : Json()},
                    {"checkpoint", saved_step_ < 0 ? Json() : Json(StepFolderOf(saved_step_).string())},
                    {"data", CountsJson(sources_.train->counts())},
                    {"tokens", tokens_},
                    {"tokens_per_s", seconds_ > 0 ? tokens_ / seconds_ : 0}};
    if (!read_.json().empty()) summary["ranks"] = read_.json();
    return summary;
  }

 private:
  const Mesh& mesh() const { return options_.mesh; }
  bool is_first() const { return mesh().is_first(); }

  // A signal that any rank has received stops all of them after the same step.
  int AnyRanks(int signal) const {
    double most = signal;
    mesh().world().AllMax(std::span(&most, 1));
    return static_cast<int>(most);
  }

  int Steps(const StopSignals& signals) {
    for (step_ = first_step_; step_ < options_.steps; ++step_) {
      trace_.Begin(step_);
      if (!TrainStep()) break;
      if (saver_.done()) AwaitSave();
      if (BadLoss() || BadGradients()) return static_cast<int>(ErrorCode::kFailed);
      if (samples_ && samples_->Due(step_)) Sample();
      if (EvalDue() && !Evaluate()) break;
      if (const int signal = AnyRanks(signals.received()); signal != 0) return StopBySignal(signal);
      if (SaveDue()) SaveDuring();
    }
    return Finish();
  }

  // Data that may end before `steps` leaves open how many checkpoints there will be: then for one.
  void CheckDisk(const RunConfig& config) {
    const int64_t most = config.Given("num_epoch") && config.Int("num_epoch") > 0 ? 1 : options_.steps;
    const int64_t count = std::min(most, NewCheckpoints(options_, first_step_));
    CheckDiskForCheckpoints(options_.checkpoints_dir(), count, CheckpointBytes(options_, loaded_, sources_.companions, session_));
  }

  void Resume() {
    if (first_step_ >= options_.steps) {
      Throw(ErrorCode::kUsage, "run {} has completed step {}; give steps= above {}, or another run_name", options_.run_name, resume_->step,
            first_step_);
    }
    RestoreOptimizer(*resume_, session_);
    if (resume_->data_state.is_null())
      spdlog::warn("{} holds no position in this run's data, which is read from its start", resume_->dir.string());
    else
      sources_.train->Restore(resume_->data_state);
    spdlog::info("resuming run {} from {} at step {}", options_.run_name, resume_->dir.string(), first_step_);
  }

  // Rows of conversations that were not trained on as they stand.
  void SayWhatWasLeftOut() {
    const SampleCounts c = sources_.train->counts();
    if (c.truncated + c.too_long + c.without_target + c.bad == 0) return;
    step_log_.Clear();
    spdlog::warn(
        "of {} conversations read, {} were cut at max_target_length={}; left out were {} longer than that, {} without an answer "
        "to learn and {} bad rows",
        c.read, c.truncated, options_.length, c.too_long, c.without_target, c.bad);
  }

  std::filesystem::path StepFolderOf(int64_t step) const { return options_.checkpoints_dir() / std::to_string(step); }
  std::filesystem::path MetricsFile() const { return options_.run_dir / "metrics" / "metrics.jsonl"; }

  void OpenSinks(const RunConfig& config) {
    AddJsonlSink(MetricsFile());
    if (config.Bool("enable_tensorboard")) sinks_.push_back(OpenTensorBoardSink(options_.run_dir / "tensorboard", first_step_));
    if (!config.String("metrics_file").empty()) AddJsonlSink(config.String("metrics_file"));
  }

  void AddJsonlSink(const std::filesystem::path& path) {
    DropStepsFrom(path, first_step_);
    sinks_.push_back(OpenJsonlSink(path));
  }

  bool NextBatch() {
    const TraceSlice slice("data");
    return sources_.train->Next(&batch_);
  }

  bool TrainStep() {
    const Stopwatch clock;
    const MeshTraffic before = TrafficOf(mesh());
    const double text_waits = sources_.host.traffic().seconds;
    Pulse::AtStep(step_);
    Pulse::At(Activity::kReading);
    if (!NextBatch()) {
      step_log_.Clear();
      spdlog::info("the data has ended after {} steps", step_);
      why_ = step_ < options_.steps ? fmt::format("complete: the data has ended after {} steps", step_) : "";
      return false;
    }
    const double data_seconds = clock.Seconds();
    const double rate = LearningRate(options_.schedule, step_);
    savable_ = false;
    Pulse::At(Activity::kForward);
    report_ = session_.Step(batch_, rate);
    savable_ = true;
    Pulse::At(Activity::kReading);
    done_ = step_;
    const double tokens = static_cast<double>(batch_.tokens());
    tokens_ += tokens;
    timing_ = {clock.Seconds(), flops_per_token_ * tokens * 1e-12, tokens, peak_gflops_, data_seconds};
    seconds_ += timing_.seconds;
    const double waits = TrafficOf(mesh()).seconds - before.seconds + sources_.host.traffic().seconds - text_waits;
    if (mesh().world().size() > 1) timing_.slowest = FindSlowest(mesh(), timing_.seconds - waits);
    step_log_.Completed(step_, report_, timing_);
    const TraceSlice slice("metrics");
    Scalars scalars = StepScalars(step_, report_, timing_, rate);
    AddTraffic(mesh(), before, scalars);  // of the step alone, not of what is told about it
    AddExpertScalars(session_, scalars);
    Report(scalars);
    if (journal_) journal_->NoteExperts(step_, session_);
    CheckFolder();
    return true;
  }

  // Metrics go on into files that no path leads to. The last step is saved unless something else has taken the folder's place.
  void CheckFolder() {
    if (!is_first() || lock_->IsAt(options_.run_dir)) return;
    savable_ = !std::filesystem::exists(options_.run_dir);
    Throw(ErrorCode::kResource, "{}: the run's folder was removed or replaced while it trained; its metrics are lost",
          options_.run_dir.string());
  }

  // The page is made of what the metrics' files hold.
  void EndJournal(int code, const std::string& why) {
    trace_.End();
    for (const auto& sink : sinks_) sink->Flush();
    if (journal_ && done_ >= first_step_) journal_->End(code, why);
  }

  void Report(const Scalars& scalars) {
    for (const auto& sink : sinks_) sink->Write(scalars);
  }

  // After the last step, or the end of the data.
  int Finish() {
    step_log_.End();
    SayWhatWasLeftOut();
    AwaitSave();
    step_ = done_;
    if (samples_ && done_ >= first_step_) Sample();
    if (done_ < first_step_) {
      if (!resume_) Throw(ErrorCode::kInput, "no step was trained: the data has no batch");
      spdlog::warn("run {} has used up its data with step {}: nothing is left to train; another run_name starts anew", options_.run_name,
                   done_);
    } else if (options_.checkpointing && options_.save_on_completion && saved_step_ != done_) {
      Save();
    }
    return 0;
  }

  std::string LastCheckpoint() {
    AwaitSave();
    return saved_step_ < 0 ? "the last checkpoint is the one that the run started from"
                           : fmt::format("the last checkpoint is {}", saved_step_);
  }

  // The optimizer has skipped the step. A loss may recover from one such gradient; from several in a row it does not.
  bool BadGradients() {
    if (report_.optimizer.spike) {
      step_log_.Clear();
      spdlog::warn("step {}: loss {} or gradient norm {} leaps; nothing was changed", step_, report_.loss, report_.optimizer.raw_grad_norm);
    }
    skipped_ = report_.optimizer.applied || report_.optimizer.spike ? 0 : skipped_ + 1;
    if (skipped_ == 0) return false;
    step_log_.Clear();
    spdlog::warn("step {}: the gradient's norm is {}; nothing was changed", step_, report_.optimizer.raw_grad_norm);
    if (skipped_ < kMostSkipped) return false;
    step_log_.End();
    const std::string last = LastCheckpoint();
    why_ = fmt::format("step {}: {} steps in a row had no finite gradient", step_, skipped_);
    spdlog::error("{}; {}; lower learning_rate or look at the data", why_, last);
    return true;
  }

  bool BadLoss() {
    const bool nan = std::isnan(report_.loss) && options_.abort_on_nan, inf = std::isinf(report_.loss) && options_.abort_on_inf;
    if (!nan && !inf) return false;
    step_log_.End();
    const std::string last = LastCheckpoint();
    why_ = fmt::format("step {}: the loss is {}", step_, report_.loss);
    spdlog::error("{}; {}; lower learning_rate or look at the data", why_, last);
    return true;
  }

  bool EvalDue() const {
    return sources_.eval && step_ >= options_.eval_start_step && (step_ - options_.eval_start_step) % options_.eval_interval == 0;
  }

  // False: target_eval_loss is reached.
  bool Evaluate() {
    Pulse::At(Activity::kReading);
    const TraceSlice slice("evaluation");
    sources_.eval->Reset();
    const Stopwatch clock;
    LossSums sums;
    double bytes = 0;
    for (int64_t i = 0; (options_.eval_steps < 0 || i < options_.eval_steps) && sources_.eval->Next(&eval_batch_); ++i) {
      Pulse::At(Activity::kForward);
      sums += session_.Evaluate(eval_batch_);
      Pulse::At(Activity::kReading);
      bytes += static_cast<double>(eval_batch_.text_bytes);
    }
    mesh().SumOverRows(std::span(&bytes, 1));  // as the sums of the losses are
    const EvalReport report{sums, bytes, clock.Seconds(), options_.mtp.eval_module > 0};
    const double loss = report.loss();
    eval_loss_ = loss;
    Report(EvalScalars(step_, report));
    step_log_.Clear();
    spdlog::info("{}", EvalLine(step_, report));
    return !(options_.target_eval_loss > 0 && loss <= options_.target_eval_loss);
  }

  void Sample() {
    step_log_.Clear();
    samples_->Write(step_);
  }

  bool SaveDue() const {
    return options_.checkpointing && options_.checkpoint_period > 0 && step_ > 0 && step_ % options_.checkpoint_period == 0;
  }

  PendingSave Prepare() { return PrepareSave(options_, loaded_, sources_.companions, session_, sources_.train->State(), step_); }

  // Steps go on meanwhile, but for the last.
  void SaveDuring() {
    if (!options_.CopiesState() || step_ + 1 == options_.steps) return Save();
    AwaitSave();
    const TraceSlice slice("checkpoint's copy");
    saver_.Start(Prepare(), session_);
    saving_clock_.Restart();
  }

  // Of a save that SaveDuring began.
  void AwaitSave() {
    if (!saver_.running()) return;
    step_log_.Clear();
    const TraceSlice slice("wait for checkpoint");
    Saving([this] { saved_step_ = saver_.Wait(); });
    spdlog::info("saved step {} in {:.1f} s, beside training: {}", saved_step_, saving_clock_.Seconds(),
                 StepFolderOf(saved_step_).string());
  }

  void Save() {
    AwaitSave();
    step_log_.Clear();
    const TraceSlice slice("checkpoint");
    const Stopwatch clock;
    Saving([this] { WriteSave(Prepare()); });
    saved_step_ = step_;
    spdlog::info("saved step {} in {:.1f} s: {}", step_, clock.Seconds(), StepFolderOf(step_).string());
  }

  // Once saving has failed, nothing is saved any more.
  template <class F>
  void Saving(const F& f) {
    Pulse::At(Activity::kSaving);
    savable_ = false;
    try {
      f();
    } catch (const std::exception&) {
      CheckFolder();
      throw;
    }
    savable_ = true;
  }

  void SaveBeforeError() {
    step_log_.End();
    if (mesh().world().size() > 1) return;  // the others are elsewhere
    if (!options_.checkpointing || !savable_ || done_ < first_step_ || saved_step_ == done_) return;
    step_ = done_;
    try {
      AwaitSave();
      if (saved_step_ == done_) return;
      Save();
      spdlog::warn("step {}, the last complete one, was saved before the run ends: {}", step_, StepFolderOf(step_).string());
    } catch (const std::exception& error) {
      spdlog::error("step {}, the last complete one, could not be saved: {}", step_, error.what());
    }
  }

  int StopBySignal(int signal) {
    step_log_.End();
    why_ = fmt::format("stopped by signal {} after step {}", signal, step_);
    spdlog::info("signal {}: stopping after step {}", signal, step_);
    if (options_.checkpointing) Save();
    return 128 + signal;
  }

  TrainOptions options_;
  std::optional<FolderLock> lock_;
  std::optional<ResumePoint> resume_;
  ModelConfig planned_;
  DataSources sources_;
  LoadedModel loaded_;
  TrainSession session_;
  int64_t first_step_, done_;  // done_: the last complete step
  int64_t step_ = 0, saved_step_ = -1, skipped_ = 0;
  bool savable_ = true;  // false while weights move, and once saving has failed
  AsyncSaver saver_;
  Stopwatch saving_clock_;
  double flops_per_token_, peak_gflops_ = 1;
  std::vector<std::unique_ptr<ScalarSink>> sinks_;
  std::optional<TextSamples> samples_;
  std::optional<RunJournal> journal_;
  std::string why_;  // the run ended before its last step
  StepLog step_log_;
  TraceWindow trace_;
  Batch batch_, eval_batch_;
  StepReport report_;
  StepTiming timing_;
  double tokens_ = 0, seconds_ = 0;  // of the steps
  ReadByRank read_{options_.mesh};
  std::optional<double> eval_loss_;
};

}  // namespace

int RunTraining(const RunConfig& config) { return TrainOnMesh(config, {}); }

int TrainOnMesh(const RunConfig& config, const Mesh& mesh) {
  CheckDataNamed(config);
  auto run = std::make_unique<Run>(config, mesh);
  try {
    const int code = run->Loop();
    if (config.String("json").empty()) return code;
    const Json summary = run->Summary();
    if (mesh.is_first()) WriteOutput(config.String("json"), JsonText(summary));
    return code;
  } catch (const std::exception&) {
    if (mesh.world().size() > 1) run.release();  // its threads may wait for ranks that wait for this one, which ends with its process
    throw;
  }
}

}  // namespace fathom
