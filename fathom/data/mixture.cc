#include "fathom/data/mixture.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <numeric>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr const char* kKind = "mixture";

// A path with the number behind its last colon; weight 0: there is none.
MixturePart ParsePart(const std::string& text, std::string_view flag) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos || std::filesystem::exists(text)) return {text, 0};
  double weight = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, weight);
  if (error != std::errc() || stop != end) return {text, 0};
  if (!(weight > 0) || weight > 1e9) Throw(ErrorCode::kUsage, "{}: the weight of {} must be a number above 0", flag, text);
  return {text.substr(0, colon), weight};
}

}  // namespace

std::vector<MixturePart> ParseMixture(const std::string& paths, std::string_view flag) {
  std::vector<MixturePart> parts;
  for (size_t begin = 0; begin <= paths.size();) {
    const size_t end = std::min(paths.find(',', begin), paths.size());
    if (end > begin) parts.push_back(ParsePart(paths.substr(begin, end - begin), flag));
    begin = end + 1;
  }
  const auto bare = std::ranges::find(parts, 0.0, &MixturePart::weight);
  if (std::ranges::all_of(parts, [](const MixturePart& part) { return part.weight == 0; })) return {};
  if (bare != parts.end()) Throw(ErrorCode::kUsage, "{}: {} has no weight and others have: write PATH:WEIGHT for each", flag, bare->path);
  return parts;
}

MixtureSource::MixtureSource(const MixtureConfig& config, std::vector<std::unique_ptr<BatchSource>> sources, std::vector<double> weights)
    : config_(config), sources_(std::move(sources)), weights_(std::move(weights)), taken_(weights_.size()) {
  FATHOM_CHECK(!sources_.empty() && sources_.size() == weights_.size());
  const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  for (double& weight : weights_) weight /= sum;
}

size_t MixtureSource::Furthest() const {
  const auto rows = static_cast<double>(std::accumulate(taken_.begin(), taken_.end(), int64_t{1}));
  size_t best = 0;
  double most = -1e300;
  for (size_t i = 0; i < taken_.size(); ++i) {
    const double behind = weights_[i] * rows - static_cast<double>(taken_[i]);
    if (behind > most) best = i;
    most = std::max(most, behind);
  }
  return best;
}

bool MixtureSource::Next(Batch* batch) {
  batch->Clear(config_.rows, config_.length);
  const int64_t first = config_.rank * config_.rows;
  for (int64_t r = 0; r < config_.ranks * config_.rows; ++r) {
    const size_t source = Furthest();
    if (!sources_[source]->Next(&row_)) return r > 0;
    ++taken_[source];
    if (r >= first && r < first + config_.rows) batch->CopyRow(r - first, row_);
  }
  return true;
}

Json MixtureSource::State() const {
  Json states = Json::array();
  for (const auto& source : sources_) states.push_back(source->State());
  return {{"kind", kKind}, {"weights", weights_}, {"taken", taken_}, {"sources", states}};
}

void MixtureSource::Restore(const Json& state) {
  const Json none = Json::array();
  if (!state.is_object() || state.value("kind", "") != kKind || state.value("weights", none) != Json(weights_) ||
      state.value("sources", none).size() != sources_.size() || state.value("taken", none).size() != taken_.size()) {
    Throw(ErrorCode::kInput, "the checkpoint's data position is not one in this mixture; resume with the same parts and weights");
  }
  for (size_t i = 0; i < sources_.size(); ++i) sources_[i]->Restore(state["sources"][i]);
  taken_ = state["taken"].get<std::vector<int64_t>>();
}

void MixtureSource::Reset() {
  for (const auto& source : sources_) source->Reset();
  std::ranges::fill(taken_, 0);
}

SampleCounts MixtureSource::counts() const {
  SampleCounts sum;
  for (const auto& source : sources_) sum += source->counts();
  return sum;
}

int64_t MixtureSource::bytes_tokenised() const {
  int64_t sum = 0;
  for (const auto& source : sources_) sum += source->bytes_tokenised();
  return sum;
}

}  // namespace fathom
