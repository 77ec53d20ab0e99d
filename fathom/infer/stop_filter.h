// Cuts streamed text before the first stop string, and holds back what may be the beginning of one.
#pragma once

#include <string>
#include <vector>

namespace fathom {

class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stop);
  // The part of everything pushed so far that can be shown and has not been returned yet.
  std::string Push(const std::string& piece);
  // What was held back, at the end of the text.
  std::string Flush();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fathom
