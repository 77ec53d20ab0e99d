// Perplexity of a model on documents: every token after a document's first is a target once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "fathom/eval/forward.h"

namespace fathom {

// The others of several processes that are given the same documents and divide the work among themselves.
struct TextRanks {
  int64_t rank = 0, count = 1;
  std::function<void(std::span<double>)> sum = [](std::span<double>) {};  // over them; called by all
};

struct PerplexityOptions {
  int64_t window = 0;  // the longest sequence that the model sees
  int64_t stride = 0;  // from window to window of a long document, at most `window`: a target of a later window has window - stride tokens
                       // or more before it. Equal to window: no overlap, the least work
  std::function<void(double)> progress;  // gets the bytes of text that are done, now and then; may be empty
  TextRanks ranks = {};
};

// The windows of a document with so many targets: targets [begin, end) are shown, those from `counted` on for the first time.
void ForEachWindow(int64_t targets, int64_t window, int64_t stride,
                   const std::function<void(int64_t begin, int64_t end, int64_t counted)>& f);
// Throws Error(kUsage): a window or stride that the model's context does not allow.
void CheckWindow(const ModelConfig& config, int64_t window, int64_t stride);

struct PerplexityResult {
  double nll = 0;  // sum over the targets, natural logarithm
  int64_t targets = 0, documents = 0, text_bytes = 0;
  int64_t target_bytes = 0;  // of the text that the targets stand for: without BOS, a document's first token is none
  double NllPerToken() const;
  double Perplexity() const;   // exp of that
  double BitsPerByte() const;  // of the targets' text; does not depend on the tokenizer
};

class PerplexityMeter {
 public:
  // model must outlive the meter. Throws Error(kUsage): a window or stride out of range.
  PerplexityMeter(ForwardModel& model, const PerplexityOptions& options);
  // A document's tokens, BOS and EOS included where they're wanted. Short documents are run together, packed into one window, and don't
  // see each other. text_bytes: the document's; target_bytes: of what its targets stand for.
  void Add(std::span<const int32_t> ids, int64_t text_bytes, int64_t target_bytes);
  // Of all text; with several ranks, which compute a pass each in turn, the bits of one. Collective.
  PerplexityResult Finish();

 private:
  void AddWindow(std::span<const int32_t> ids, int64_t uncounted);
  void Run();

  ForwardModel& model_;
  PerplexityOptions options_;
  PerplexityResult result_;
  std::vector<double> losses_;                      // of each pass; 0 of other ranks'
  std::vector<int32_t> ids_, targets_, positions_;  // of windows that wait for each other
  std::vector<float> weights_;
  std::vector<Segment> segments_;
};

}  // namespace fathom
