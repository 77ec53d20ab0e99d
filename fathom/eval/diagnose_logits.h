// Which known fault explains logits that a model does not have: the model is run with each built in.
#pragma once

#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "fathom/eval/faults.h"
#include "fathom/eval/forward.h"
#include "fathom/eval/logits.h"

namespace fathom {

struct TriedFault {
  std::string_view name, what;
  double max_kl = 0;            // what is left of the KL divergence with it, at most, over all prompts
  bool within_the_bars = true;  // on all prompts
};

class FaultSearch {
 public:
  // model and its options as the logits were compared with; the model outlives the search.
  FaultSearch(const ForwardModel& model, const LayerOptions& layers, const LogitBars& bars);

  // How many times a prompt is run.
  int64_t Runs() const { return std::ssize(faults_); }
  // Runs every fault that can occur in the model on one prompt; after_each() is called after each run.
  void Add(const GoldenLogits& golden, FunctionRef<void()> after_each);

  // One per name: of variants the one that leaves least.
  std::vector<TriedFault> Tried() const;
  // The one that brings all prompts within the bars, of several the one that leaves least; never a guess: it leaves at most a quarter of
  // `without`, the KL divergence of the model as it is, and less than any other.
  std::optional<TriedFault> Cause(double without = std::numeric_limits<double>::infinity()) const;

 private:
  const ForwardModel& model_;
  LayerOptions layers_;
  LogitBars bars_;
  std::vector<const KnownFault*> faults_;
  std::vector<TriedFault> results_;  // of faults_
};

// The model with a fault.
ForwardModel WithFault(const ForwardModel& model, const LayerOptions& layers, const KnownFault& fault);

}  // namespace fathom
