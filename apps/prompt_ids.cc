#include "apps/prompt_ids.h"

#include <algorithm>
#include <cstdlib>

#include "fathom/base/error.h"

namespace fathom {

std::vector<int32_t> ParsePromptIds(const std::string& text) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    char* end = nullptr;
    const long value = std::strtol(word.c_str(), &end, 10);
    if (word.empty() || *end != '\0' || value < 0 || value > INT32_MAX)
      Throw(ErrorCode::kUsage, "prompt_ids={}: whole numbers with commas are needed", text);
    ids.push_back(static_cast<int32_t>(value));
    at = comma + 1;
  }
  return ids;
}

}  // namespace fathom
