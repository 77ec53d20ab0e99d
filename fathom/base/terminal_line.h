// The line of stderr that a terminal redraws in place. A rank's stderr is a pipe to its launcher: there the launcher's is drawn on.
#pragma once

#include <cstdio>
#include <memory>
#include <span>
#include <string>

namespace fathom {

// As many of the leading parts, joined by ", ", as `width` columns hold; of a first one that alone is too long its beginning.
std::string JoinFitting(std::span<const std::string> parts, size_t width);

class TerminalLine {
 public:
  TerminalLine();
  // Leaves what is drawn as a line of its own.
  ~TerminalLine();
  TerminalLine(const TerminalLine&) = delete;
  TerminalLine& operator=(const TerminalLine&) = delete;

  // False where nothing can be redrawn: stderr is no terminal, or one that cannot go back (TERM=dumb), or nothing is logged. Draw and Clear
  // then do nothing.
  bool can_draw() const { return terminal_ != nullptr; }
  // parts are ASCII; what the window's width of this moment does not hold is left out from the end.
  void Draw(std::span<const std::string> parts);
  // Takes the line off the terminal; call before anything else prints there.
  void Clear();

 private:
  struct Close {
    void operator()(std::FILE* file) const {
      if (file != stderr) std::fclose(file);
    }
  };
  static std::unique_ptr<std::FILE, Close> Terminal();

  std::unique_ptr<std::FILE, Close> terminal_;
  bool drawn_ = false;
};

}  // namespace fathom
