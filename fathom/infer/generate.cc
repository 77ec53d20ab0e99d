#include "fathom/infer/generate.h"

#include <algorithm>
#include <list>

#include "fathom/base/clock.h"
#include "fathom/infer/draft_cost.h"

namespace fathom {
namespace {

void CheckRequest(const Engine& engine, const Request& request) {
  const int64_t capacity = engine.model().capacity();
  if (request.prompt.empty()) Throw(ErrorCode::kUsage, "the prompt is empty: give prompt=, prompt_file= or prompt_ids=");
  if (static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens > capacity) {
    Throw(ErrorCode::kUsage, "a prompt of {} tokens and {} new ones do not fit into {}", request.prompt.size(), request.max_new_tokens,
          capacity);
  }
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= engine.config().vocab_size)
      Throw(ErrorCode::kUsage, "prompt token {}: the vocabulary is 0..{}", id, engine.config().vocab_size - 1);
  }
}

// A prompt on its way.
struct Active {
  Active(size_t n, Engine& engine, Answer a) : index(n), sequence(engine.pool()), answer(std::move(a)) {}
  bool prefilled() const { return fed == std::ssize(answer.result.prompt_ids); }
  // The next part of the prompt, which is always cut in the same way, whoever its neighbours are.
  std::span<const int32_t> NextOfPrompt() const {
    const int64_t count = std::min(Engine::kPassTokens, std::ssize(answer.result.prompt_ids) - fed);
    return std::span(answer.result.prompt_ids).subspan(static_cast<size_t>(fed), static_cast<size_t>(count));
  }

  size_t index;  // of the request
  Sequence sequence;
  Answer answer;
  int64_t fed = 0;                  // tokens of the prompt that passes have taken
  std::vector<int32_t> candidates;  // of the next pass: the last token, then drafts of those behind it
  Stopwatch clock;                  // since it joined, then since its first token
};

class Batch {
 public:
  Batch(Engine& engine, const Tokenizer* tokenizer, std::span<const Request> requests, const GenerateOptions& options, int64_t size,
        const GenerateEvents& events)
      : engine_(engine),
        tokenizer_(tokenizer),
        requests_(requests),
        options_(options),
        size_(size),
        events_(events),
        sampler_(options.sampling, engine.config().vocab_size) {}

  void Run() {
    for (Admit(); !active_.empty(); Admit()) {
      Step();
      active_.remove_if([this](Active& a) { return a.prefilled() && a.answer.ended() && End(a); });
    }
  }

 private:
  void Admit();
  void Step();
  int64_t Made() const;
  bool End(Active& a);
  int64_t DraftsOf(const Active& a) const;
  void Draft();
  void Propose(ConstView logits, std::span<Active* const> drafting, int64_t place);
  void Take(Active& a, int32_t id);
  void Judge(Active& a, ConstView logits);
  void ShareBeginning(Active& a);
  void TakeCandidates();
  void TakeShortParts();
  void TakePart(Active& a, std::span<const int32_t> part);
  void FeedLongParts();
  void Take(Active& a, std::span<const int32_t> ids, int64_t logits, bool is_prompt);
  void Pass();

  Engine& engine_;
  const Tokenizer* tokenizer_;
  std::span<const Request> requests_;
  const GenerateOptions& options_;
  int64_t size_;
  const GenerateEvents& events_;
  Sampler sampler_;
  DraftCost cost_;
  std::list<Active> active_;
  size_t next_ = 0;                  // request to join
  std::vector<Engine::Part> parts_;  // of the pass
  std::vector<Active*> takes_part_;  // whose they are
  int64_t rows_ = 0;                 // of all of them
};

void Batch::Admit() {
  for (; std::ssize(active_) < size_ && next_ < requests_.size(); ++next_) {
    const Request& r = requests_[next_];
    const ShowText show = events_.text ? [this, n = next_](std::string_view piece) { events_.text(n, piece); } : ShowText();
    active_.emplace_back(next_, engine_, Answer(tokenizer_, r.prompt, options_, r.max_new_tokens, engine_.config().eos_token_ids, show));
  }
}

// Drafts that fit into the answer, and with everybody's into a pass.
int64_t Batch::DraftsOf(const Active& a) const {
  const int64_t share = Engine::kPassTokens / std::ssize(active_) - 1;
  return std::max<int64_t>(0, std::min({options_.draft_tokens, a.answer.room() - 1, share}));
}

// Drawn with the random numbers that the answer's own tokens are drawn with, so that they are often the same.
void Batch::Propose(ConstView logits, std::span<Active* const> drafting, int64_t place) {
  for (size_t i = 0; i < drafting.size(); ++i) {
    Active& a = *drafting[i];
    const std::span<const float> row{logits.row<float>(static_cast<int64_t>(i)), static_cast<size_t>(logits.dim(1))};
    a.candidates.push_back(sampler_.Guess(row, a.answer.made() + place));
  }
}

// As many drafts for every answer that takes any as the one with the least room.
void Batch::Draft() {
  std::vector<Active*> drafting;
  std::vector<NextToken> next;
  int64_t most = 0;
  for (Active& a : active_) {
    if (!a.prefilled() || DraftsOf(a) == 0) continue;
    most = drafting.empty() ? DraftsOf(a) : std::min(most, DraftsOf(a));
    drafting.push_back(&a);
    next.push_back({&a.sequence, a.candidates.back()});
  }
  if (drafting.empty()) return;
  Propose(engine_.FirstDrafts(next, most), drafting, 0);
  for (int64_t place = 1; place < most; ++place) {
    for (size_t i = 0; i < next.size(); ++i) next[i].id = drafting[i]->candidates.back();
    Propose(engine_.NextDrafts(next), drafting, place);
  }
}

void Batch::Take(Active& a, std::span<const int32_t> ids, int64_t logits, bool is_prompt) {
  parts_.push_back({&a.sequence, ids, logits, is_prompt});
  takes_part_.push_back(&a);
  rows_ += std::ssize(ids);
}

// Of a prompt; behind its last token logits are wanted.
void Batch::TakePart(Active& a, std::span<const int32_t> part) {
  Take(a, part, a.fed + std::ssize(part) == std::ssize(a.answer.result.prompt_ids) ? 1 : 0, true);
}

// The next tokens of all answers, and drafts behind them.
void Batch::TakeCandidates() {
  for (Active& a : active_) {
    if (a.prefilled()) Take(a, a.candidates, std::ssize(a.candidates), false);
  }
}

// A prompt that begins as another one that is being answered begins behind what they share, at a place where it would have been cut, so
// that all bits are those that it would have had alone. A drafting module's state is not shared.
void Batch::ShareBeginning(Active& a) {
  const auto& prompt = a.answer.result.prompt_ids;
  if (a.fed > 0 || engine_.model().drafts().enabled) return;
  const Active* best = nullptr;
  int64_t most = 0;
  for (const Active& other : active_) {
    const int64_t shared = std::ranges::mismatch(prompt, other.sequence.ids).in1 - prompt.begin();
    if (shared <= most) continue;
    most = shared;
    best = &other;
  }
  most = std::min(most, std::ssize(prompt) - 1);  // the last token's logits are wanted
  if (!engine_.by_row()) most -= most % Engine::kPassTokens;
  if (most < kCacheBlock) return;
  a.sequence = Sequence(best->sequence, most);
  a.fed = most;
}

// Parts of prompts that may share a pass, as far as they fit, in the order in which they joined.
void Batch::TakeShortParts() {
  for (Active& a : active_) {
    ShareBeginning(a);
    const std::span<const int32_t> part = a.NextOfPrompt();
    if (part.empty() || std::ssize(part) > Engine::kSharedPart || rows_ + std::ssize(part) > Engine::kPassTokens) continue;
    TakePart(a, part);
  }
}

// The other prompts' parts, each in a pass of its own, as many tokens together as a pass takes.
void Batch::FeedLongParts() {
  int64_t fed = 0;
  for (Active& a : active_) {
    ShareBeginning(a);
    const std::span<const int32_t> part = a.NextOfPrompt();
    if (part.empty()) continue;
    if (fed > 0 && fed + std::ssize(part) > Engine::kPassTokens) return;
    TakePart(a, part);
    Pass();
    fed += std::ssize(part);
  }
}

void Batch::Pass() {
  if (parts_.empty()) return;
  const ConstView logits = engine_.Append(parts_);
  int64_t row = 0;
  for (size_t i = 0; i < parts_.size(); row += parts_[i++].logits) {
    Active& a = *takes_part_[i];
    if (!parts_[i].is_prompt) {
      Judge(a, logits.Rows(row, row + parts_[i].logits));
      continue;
    }
    a.fed += std::ssize(parts_[i].ids);
    if (!a.prefilled()) continue;
    a.answer.result.prefill_seconds = a.clock.Seconds();
    a.clock.Restart();
    if (!a.answer.ended()) Take(a, sampler_.Sample({logits.row<float>(row), static_cast<size_t>(logits.dim(1))}, 0));
  }
  parts_.clear();
  takes_part_.clear();
  rows_ = 0;
}

int64_t Batch::Made() const {
  int64_t made = 0;
  for (const Active& a : active_) made += a.prefilled() ? a.answer.made() : 0;
  return made;
}

// One pass over the next tokens of all answers and short parts of prompts, then long parts.
void Batch::Step() {
  const Stopwatch clock;
  for (Active& a : active_) {
    if (a.prefilled()) a.candidates.assign(1, a.answer.result.ids.back());
  }
  const bool may_draft = std::ranges::any_of(active_, [this](const Active& a) { return a.prefilled() && DraftsOf(a) > 0; });
  const bool feeds = std::ranges::any_of(active_, [](const Active& a) { return !a.prefilled(); });
  const int64_t made = Made();
  if (may_draft && cost_.UseDrafts()) Draft();
  TakeCandidates();
  TakeShortParts();
  Pass();
  FeedLongParts();
  if (may_draft && !feeds) cost_.Note(Made() - made, SlowestOf(engine_.model().groups(), clock.Seconds()));
}

void Batch::Take(Active& a, int32_t id) {
  a.answer.Take(id);
  if (!a.answer.ended() && events_.suffices && events_.suffices(a.index)) a.answer.End();
}

// Each token is the one that the model alone gives here; behind it the pass is of use only if that was the draft.
void Batch::Judge(Active& a, ConstView logits) {
  const int64_t rows = logits.dim(0);
  int64_t taken = 0;
  for (bool as_drafted = true; as_drafted && taken < rows && !a.answer.ended();) {
    const int32_t id = sampler_.Sample({logits.row<float>(taken), static_cast<size_t>(logits.dim(1))}, a.answer.made());
    Take(a, id);
    ++taken;
    as_drafted = taken < rows && a.candidates[static_cast<size_t>(taken)] == id;
    if (as_drafted) ++a.answer.result.accepted;
  }
  a.answer.result.drafted += rows - 1;
  if (taken < rows) engine_.TakeBack(a.sequence, rows - taken);
}

bool Batch::End(Active& a) {
  GenerateResult& r = a.answer.result;
  r.decode_seconds = a.clock.Seconds();
  a.answer.Finish();
  if (options_.draft_tokens > 0) {
    r.drafting_tokens_per_second = cost_.drafted().TokensPerSecond();
    r.plain_tokens_per_second = cost_.plain().TokensPerSecond();
  }
  events_.done(a.index, std::move(r));
  return true;
}

}  // namespace

void GenerateAll(Engine& engine, const Tokenizer* tokenizer, std::span<const Request> requests, const GenerateOptions& options,
                 int64_t batch, const GenerateEvents& events) {
  for (const Request& r : requests) CheckRequest(engine, r);
  Batch(engine, tokenizer, requests, options, batch, events).Run();
}

GenerateResult Generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text) {
  const Request request{{prompt.begin(), prompt.end()}, options.max_new_tokens};
  GenerateResult result;
  const GenerateEvents events{[&](size_t, std::string_view piece) {
                                if (on_text) on_text(piece);
                              },
                              [&](size_t, GenerateResult r) { result = std::move(r); }};
  GenerateAll(engine, tokenizer, {&request, 1}, options, 1, events);
  return result;
}

}  // namespace fathom
