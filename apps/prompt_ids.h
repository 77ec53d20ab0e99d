// A prompt given as token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

// "1,2,3", the value of prompt_ids. Throws Error(kUsage).
std::vector<int32_t> ParsePromptIds(const std::string& text);

}  // namespace fathom
