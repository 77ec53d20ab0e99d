#include "fathom/tokenizer/byte_alphabet.h"

#include "fathom/tokenizer/utf8.h"

namespace fathom {

std::array<char32_t, 256> ByteStandIns() {
  std::array<char32_t, 256> code{};
  char32_t next = 256;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    code[b] = printable ? b : next++;
  }
  return code;
}

std::string BytesToStandIns(std::string_view bytes) {
  const auto code = ByteStandIns();
  std::string out;
  for (const char b : bytes) AppendUtf8(code[static_cast<unsigned char>(b)], out);
  return out;
}

StandInReader::StandInReader() {
  byte_of_.fill(-1);
  const auto code = ByteStandIns();
  for (size_t b = 0; b < 256; ++b) byte_of_[code[b]] = static_cast<int16_t>(b);
}

std::optional<std::string> StandInReader::ToBytes(std::string_view text) const {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    if (!step.valid || step.code >= byte_of_.size() || byte_of_[step.code] < 0) return std::nullopt;
    bytes += static_cast<char>(byte_of_[step.code]);
    text.remove_prefix(static_cast<size_t>(step.length));
  }
  return bytes;
}

}  // namespace fathom
