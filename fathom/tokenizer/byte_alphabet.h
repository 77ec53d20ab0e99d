// The 256 printable stand-ins with which byte-level BPE writes bytes in tokenizer.json: printable Latin-1 stands for itself, the other
// 68 bytes, in order, for U+0100 and up (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fathom {

// Code point of each byte's stand-in.
std::array<char32_t, 256> ByteStandIns();

std::string BytesToStandIns(std::string_view bytes);  // UTF-8

// Reads one tokenizer file's strings back to bytes.
class StandInReader {
 public:
  StandInReader();
  // nullopt if a character of text (UTF-8) is no stand-in.
  std::optional<std::string> ToBytes(std::string_view text) const;
  // What the decoder writes for a token of this name: its bytes, or the name itself where a character is no stand-in.
  std::string DecodedBytes(std::string_view name) const { return ToBytes(name).value_or(std::string(name)); }

 private:
  std::array<int16_t, 512> byte_of_;  // by code point; -1: none
};

}  // namespace fathom
