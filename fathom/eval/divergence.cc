#include "fathom/eval/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/eval/logits.h"
#include "fathom/infer/sampler.h"

namespace fathom {
namespace {

constexpr int64_t kAtOnce = 64;                             // windows
constexpr int64_t kGroupTokens = 16 * Engine::kPassTokens;  // enough that a last pass which is not full costs little

struct RowFigures {
  double kl, nll, reference_nll;
  bool agree;
};

double Nll(std::span<const double> logits, int32_t target) {
  const double most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const double x : logits) sum += std::exp(x - most);
  return std::log(sum) + most - logits[static_cast<size_t>(target)];
}

RowFigures FiguresOf(std::span<const float> reference, std::span<const float> model, int32_t target) {
  const std::vector<double> a(reference.begin(), reference.end()), b(model.begin(), model.end());
  const bool agree = std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin();
  return {KlDivergence(a, b), Nll(b, target), Nll(a, target), agree};
}

}  // namespace

DivergenceMeter::DivergenceMeter(const MappedModel& reference, const MappedModel& model, const PerplexityOptions& options)
    : reference_(reference, kAtOnce), model_(model, kAtOnce), options_(options) {
  CheckWindow(reference.config(), options.window, options.stride);
  CheckWindow(model.config(), options.window, options.stride);
  if (reference.config().vocab_size != model.config().vocab_size) {
    Throw(ErrorCode::kUsage, "against: a vocabulary of {} tokens, the other model's has {}; only models of one vocabulary can be compared",
          reference.config().vocab_size, model.config().vocab_size);
  }
}

void DivergenceMeter::Add(std::span<const int32_t> ids, int64_t text_bytes) {
  const auto targets = static_cast<int64_t>(ids.size()) - 1;
  ForEachWindow(targets, options_.window, options_.stride, [&](int64_t begin, int64_t end, int64_t counted) {
    if (IsMine())
      windows_.emplace_back(std::vector(ids.begin() + begin, ids.begin() + end + 1), result_.documents, begin, counted - begin,
                            Sequence(reference_.pool()), Sequence(model_.pool()));
    while (std::ssize(windows_) == kAtOnce) Pass();
    group_tokens_ += end - begin;
    if (group_tokens_ >= kGroupTokens) EndGroup();
    if (options_.progress) options_.progress(text_bytes_ + static_cast<double>(text_bytes * end) / static_cast<double>(targets));
  });
  text_bytes_ += static_cast<double>(text_bytes);
  ++result_.documents;
}

void DivergenceMeter::EndGroup() {
  while (!windows_.empty()) Pass();
  groups_.emplace_back();
  group_tokens_ = 0;
}

// The next tokens of the windows that came first, as many as a pass takes.
void DivergenceMeter::Pass() {
  std::vector<Engine::Part> reference, model;
  std::vector<const Window*> windows;
  std::vector<int64_t> from;
  int64_t room = Engine::kPassTokens;
  for (Window& w : windows_) {
    const int64_t count = std::min(room, w.Left());
    if (count == 0) break;
    const auto ids = std::span(w.ids).subspan(static_cast<size_t>(w.model.length()), static_cast<size_t>(count));
    windows.push_back(&w);
    from.push_back(w.model.length());
    reference.push_back({&w.reference, ids, count, true});
    model.push_back({&w.model, ids, count, true});
    room -= count;
  }
  const ConstView expected = reference_.Append(reference), found = model_.Append(model);
  int64_t row = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    const int64_t end = row + model[i].logits;
    Compare(*windows[i], from[i], expected.Rows(row, end), found.Rows(row, end));
    row = end;
  }
  windows_.remove_if([](const Window& w) { return w.Left() == 0; });
}

void DivergenceMeter::Compare(const Window& w, int64_t from, ConstView reference, ConstView model) {
  const int64_t rows = model.dim(0), skip = std::clamp<int64_t>(w.uncounted - from, 0, rows);
  std::vector<RowFigures> figures(static_cast<size_t>(rows));
  const auto row_of = [](ConstView x, int64_t row) { return std::span(x.row<float>(row), static_cast<size_t>(x.dim(1))); };
  for (int64_t i = skip; i < rows; ++i) {
    CheckFinite(row_of(reference, i));
    CheckFinite(row_of(model, i));
  }
  ParallelRanges(rows - skip, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin + skip; i < end + skip; ++i)
      figures[static_cast<size_t>(i)] = FiguresOf(row_of(reference, i), row_of(model, i), w.ids[static_cast<size_t>(from + i + 1)]);
  });
  for (int64_t i = skip; i < rows; ++i) {
    const RowFigures& f = figures[static_cast<size_t>(i)];
    Sums& sums = groups_.back();
    ++sums.targets;
    sums.kl += f.kl;
    sums.nll += f.nll;
    sums.reference_nll += f.reference_nll;
    sums.agreements += f.agree ? 1 : 0;
    if (f.kl <= result_.worst_kl) continue;
    result_.worst_kl = f.kl;
    result_.worst_document = w.document;
    result_.worst_token = w.first + from + i;
  }
}

// Of equals the first in the text.
void DivergenceMeter::FindWorst() {
  const TextRanks& ranks = options_.ranks;
  std::vector<double> all(static_cast<size_t>(3 * ranks.count));
  const auto at = [&](int64_t rank) { return std::span(all).subspan(static_cast<size_t>(3 * rank), 3); };
  std::ranges::copy(std::array{result_.worst_kl, static_cast<double>(result_.worst_document), static_cast<double>(result_.worst_token)},
                    at(ranks.rank).begin());
  ranks.sum(all);
  const auto key = [&](int64_t rank) { return std::tuple(-at(rank)[0], at(rank)[1], at(rank)[2]); };
  int64_t worst = 0;
  for (int64_t r = 1; r < ranks.count; ++r) worst = key(r) < key(worst) ? r : worst;
  result_.worst_kl = at(worst)[0];
  result_.worst_document = static_cast<int64_t>(at(worst)[1]);
  result_.worst_token = static_cast<int64_t>(at(worst)[2]);
}

DivergenceResult DivergenceMeter::Finish() {
  EndGroup();
  options_.ranks.sum({&groups_.front().kl, groups_.size() * sizeof(Sums) / sizeof(double)});
  for (const Sums& sums : groups_) {
    result_.kl += sums.kl;
    result_.nll += sums.nll;
    result_.reference_nll += sums.reference_nll;
    result_.targets += static_cast<int64_t>(sums.targets);
    result_.agreements += static_cast<int64_t>(sums.agreements);
  }
  FindWorst();
  if (result_.targets == 0) Throw(ErrorCode::kInput, "no document has two tokens or more: there is nothing to predict");
  return result_;
}

}  // namespace fathom
