// What a file of a data set holds: its content decides, and its name where the content leaves it open.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fathom {

enum class FileKind {
  kText,
  kJsonLines,  // an object per line
  kJsonArray,  // one array of objects
  kParquet,
  kTokens,  // token_file.h
};

struct FileFormat {
  FileKind kind = FileKind::kText;
  bool compressed = false;  // with zstd
};

// Reads the beginning of a file, through its compression. JSON lines: .jsonl, .ndjson and the like by name, others where their first line
// is an object, but for names of plain text (.txt); an array: .json whose content begins with one. Throws Error(kInput), saying what the
// file looks like and what to do: what is neither Parquet nor UTF-8 text, JSON that is neither, a name that promises zstd, JSON or Parquet
// and a content that breaks the promise.
FileFormat DetectFormat(const std::filesystem::path& path);

// Is this the beginning of a text, UTF-8 but for a few bytes? Throws Error(kInput) beginning with `where`, as DetectFormat.
void CheckIsText(std::string_view bytes, const std::string& where);
// The same for any later part of a text, in which some broken characters may stand close together.
void CheckIsTextPart(std::string_view bytes, const std::string& where);

}  // namespace fathom
