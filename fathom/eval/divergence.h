// How far one model's predictions are from another's on a text: what quantising, converting or fine-tuning has changed.
#pragma once

#include <functional>
#include <list>
#include <span>
#include <vector>

#include "fathom/eval/perplexity.h"
#include "fathom/infer/engine.h"

namespace fathom {

struct DivergenceResult {
  int64_t targets = 0, documents = 0;
  double kl = 0;                      // sum over the targets of KL(reference || model), natural logarithm
  double worst_kl = 0;                // of one target
  int64_t worst_document = 0;         // whose, from 0
  int64_t worst_token = 0;            // and behind which of its tokens, from 0
  int64_t agreements = 0;             // targets for which both have the same most likely token
  double nll = 0, reference_nll = 0;  // sums of -log p(target)
  double MeanKl() const { return kl / static_cast<double>(targets); }
  double Agreement() const { return static_cast<double>(agreements) / static_cast<double>(targets); }
};

class DivergenceMeter {
 public:
  // Both outlive the meter; their capacity is the window. Throws Error(kUsage): other vocabularies, a window or stride out of range.
  DivergenceMeter(const MappedModel& reference, const MappedModel& model, const PerplexityOptions& options);
  // A document's tokens, as PerplexityMeter takes them.
  void Add(std::span<const int32_t> ids, int64_t text_bytes);
  // Of all text; with several ranks, which compute a group of windows each in turn, the bits of one. Throws Error(kInput): nothing to
  // predict. Collective.
  DivergenceResult Finish();

 private:
  // Both models' sequences over one window on their way.
  struct Window {
    std::vector<int32_t> ids;  // and the target after the last
    int64_t document, first;   // the place of ids[0] in its document
    int64_t uncounted;         // targets that were counted before
    Sequence reference, model;
    int64_t Left() const { return std::ssize(ids) - 1 - model.length(); }
  };
  // What is summed over the targets of a group.
  struct Sums {
    double kl = 0, nll = 0, reference_nll = 0, targets = 0, agreements = 0;
  };
  bool IsMine() const { return (std::ssize(groups_) - 1) % options_.ranks.count == options_.ranks.rank; }
  void EndGroup();
  void FindWorst();
  void Pass();
  void Compare(const Window& window, int64_t from, ConstView reference, ConstView model);

  Engine reference_, model_;
  PerplexityOptions options_;
  DivergenceResult result_;
  std::list<Window> windows_;            // that wait for each other
  std::vector<Sums> groups_ = {Sums()};  // of windows one behind the other that share passes with no others; 0 of other ranks'
  int64_t group_tokens_ = 0;             // of the last one's windows so far
  double text_bytes_ = 0;
};

}  // namespace fathom
