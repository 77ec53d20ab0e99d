#include "fathom/tokenizer/utf8.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

struct Lead {
  int length;                             // 0: not a lead byte
  unsigned char second_low, second_high;  // what the second byte may be (no overlong forms, surrogates, or beyond U+10FFFF)
};

Lead LeadOf(unsigned char b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2 || b > 0xF4) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b < 0xF0) return {3, static_cast<unsigned char>(b == 0xE0 ? 0xA0 : 0x80), static_cast<unsigned char>(b == 0xED ? 0x9F : 0xBF)};
  return {4, static_cast<unsigned char>(b == 0xF0 ? 0x90 : 0x80), static_cast<unsigned char>(b == 0xF4 ? 0x8F : 0xBF)};
}

}  // namespace

Utf8Step DecodeUtf8(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const Lead lead = LeadOf(first);
  if (lead.length == 1) return {first, 1, true, false};
  if (lead.length == 0) return {kReplacementCharacter, 1, false, false};
  char32_t code = first & (0x7Fu >> lead.length);
  for (int i = 1; i < lead.length; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {kReplacementCharacter, i, false, true};
    const auto b = static_cast<unsigned char>(text[static_cast<size_t>(i)]);
    const bool fits = i == 1 ? b >= lead.second_low && b <= lead.second_high : (b & 0xC0) == 0x80;
    if (!fits) return {kReplacementCharacter, i, false, false};
    code = (code << 6) | (b & 0x3Fu);
  }
  return {code, lead.length, true, false};
}

void AppendUtf8(char32_t code, std::string& out) {
  FATHOM_CHECK(code < 0x110000 && (code < 0xD800 || code > 0xDFFF), "U+{:04X}", static_cast<unsigned>(code));
  const auto tail = [&](int shift) { out += static_cast<char>(0x80u | ((code >> shift) & 0x3Fu)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0u | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0u | (code >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0u | (code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = DecodeUtf8(bytes);
    if (step.valid) {
      out.append(bytes.substr(0, static_cast<size_t>(step.length)));
    } else {
      AppendUtf8(kReplacementCharacter, out);
    }
    bytes.remove_prefix(static_cast<size_t>(step.length));
  }
  return out;
}

size_t CompleteUtf8Prefix(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const std::string_view tail = bytes.substr(bytes.size() - back);
    if ((static_cast<unsigned char>(tail[0]) & 0xC0) == 0x80) continue;
    const Utf8Step step = DecodeUtf8(tail);
    return step.truncated && static_cast<size_t>(step.length) == back ? bytes.size() - back : bytes.size();
  }
  return bytes.size();
}

}  // namespace fathom
