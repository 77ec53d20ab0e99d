// The journal of a run for `fathom report`, in its metrics folder: run.json (flags, machine, memory, how it ended), experts.jsonl (how
// often each expert was chosen, at some steps), and the page made of them and of metrics.jsonl, report.html in the run's folder.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/config/run_config.h"
#include "fathom/train/memory.h"
#include "fathom/train/metrics.h"

namespace fathom {

class RunJournal {
 public:
  // Writes run.json without an end: a run that is killed leaves it so. Of experts.jsonl the steps before first_step stay.
  // Throws Error(kResource).
  RunJournal(const RunConfig& config, const TrainOptions& options, int64_t first_step);
  ~RunJournal();

  void SetModel(const ModelConfig& model, const std::vector<MemoryRow>& memory);
  void SetMachine(double peak_gflops);
  // Notes the load of the step's experts, if this is a step to note.
  void NoteExperts(int64_t step, TrainSession& session);
  // The end, empty `why` for a run that is complete, and the page. A page that cannot be written is a warning: the run is what counts.
  void End(int code, const std::string& why);

 private:
  void WriteAbout() const;
  std::filesystem::path run_dir_;
  int64_t period_;
  Json about_;
  std::FILE* experts_ = nullptr;  // opened when there are experts to note
  int64_t first_step_;
};

}  // namespace fathom
