#include "fathom/infer/stop_filter.h"

#include <algorithm>

namespace fathom {

StopFilter::StopFilter(std::vector<std::string> stop) : stop_(std::move(stop)) { std::erase(stop_, std::string()); }

std::string StopFilter::Push(const std::string& piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t cut = held_.size();
  for (const std::string& s : stop_) cut = std::min(cut, held_.find(s));
  if (cut < held_.size()) {
    stopped_ = true;
    return held_.substr(0, cut);
  }
  // Keep the longest tail that begins a stop string.
  size_t keep = 0;
  for (const std::string& s : stop_) {
    for (size_t n = std::min(s.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(s).substr(0, n))) keep = n;
    }
  }
  const std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopFilter::Flush() {
  std::string rest;
  if (!stopped_) rest.swap(held_);
  return rest;
}

}  // namespace fathom
