// UTF-8, tolerant of broken input: what is broken becomes U+FFFD, one per maximal subpart (Unicode 16.0, section 3.9, table 3-8).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fathom {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// One step of a scan. valid is false for a maximal broken part (code is then U+FFFD); truncated: the text ends inside a character
// that more bytes could complete.
struct Utf8Step {
  char32_t code;
  int length;  // bytes, 1..4
  bool valid;
  bool truncated;
};

// The character at the start of text, which is not empty.
Utf8Step DecodeUtf8(std::string_view text);

// code: a scalar value.
void AppendUtf8(char32_t code, std::string& out);

// Copies bytes with every maximal broken part replaced by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

// How many leading bytes can be shown now: all but a tail that more bytes could still complete to a character.
size_t CompleteUtf8Prefix(std::string_view bytes);

}  // namespace fathom
