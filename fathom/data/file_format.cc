#include "fathom/data/file_format.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <initializer_list>
#include <memory>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/log.h"
#include "fathom/data/byte_stream.h"
#include "fathom/data/token_file.h"
#include "fathom/tokenizer/utf8.h"

namespace fathom {
namespace {

using namespace std::string_view_literals;

constexpr size_t kHeadBytes = 64 << 10;
constexpr size_t kBadShare = 200;      // one byte in so many may be no UTF-8
constexpr size_t kBadCharacters = 16;  // that many in any part
constexpr const char* kGiveText = "give plain text, JSON lines or Parquet, as they are or compressed with zstd";

struct Signature {
  size_t offset;
  std::string_view bytes;
  const char* what;
  const char* advice;
};
constexpr const char* kUnpack = "unpack it first";
constexpr const char* kExport = "export its text as JSON lines";
constexpr const char* kConvert = "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)";
constexpr const char* kConvert32 = "convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)";

constexpr Signature kParquet = {0, "PAR1"sv, "a Parquet file", kExport};
constexpr Signature kSignatures[] = {
    {0, "\x1f\x8b"sv, "gzip data", "unpack it first (gunzip, or tar xzf for a .tgz); zstd is read as it is"},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "xz data", kUnpack},
    {0, "BZh"sv, "bzip2 data", kUnpack},
    {0, "\x04\x22\x4d\x18"sv, "lz4 data", kUnpack},
    {0, "LZIP"sv, "lzip data", kUnpack},
    {0, "\x28\xb5\x2f\xfd"sv, "zstd data inside zstd data", kUnpack},
    {0, "PK\x03\x04"sv, "a zip archive or an Office document", kUnpack},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", kUnpack},
    {0, "Rar!\x1a"sv, "a rar archive", kUnpack},
    {257, "ustar"sv, "a tar archive", kUnpack},
    {0, "ARROW1"sv, "an Arrow file", kExport},
    {0, "FEA1"sv, "a Feather file", kExport},
    {0, "Obj\x01"sv, "an Avro file", kExport},
    {0, "ORC"sv, "an ORC file", kExport},
    {0, "SQLite format 3"sv, "an SQLite database", kExport},
    {0, "\x89HDF"sv, "an HDF5 file", kExport},
    {0, "\x93NUMPY"sv, "a NumPy array", kExport},
    {0, "%PDF-"sv, "a PDF document", kExport},
    {0, "{\\rtf"sv, "an RTF document", kExport},
    {0, "GGUF"sv, "a model in GGUF", kGiveText},
    {0, "\xff\xfe\0\0"sv, "UTF-32 text", kConvert32},
    {0, "\0\0\xfe\xff"sv, "UTF-32 text", kConvert32},
    {0, "\xff\xfe"sv, "UTF-16 text", kConvert},
    {0, "\xfe\xff"sv, "UTF-16 text", kConvert},
};

bool IsOneOf(std::string_view ending, std::initializer_list<std::string_view> endings) {
  return std::ranges::find(endings, ending) != endings.end();
}

// ORC and BZh could begin a text; a binary file says more a little further on.
bool Matches(const Signature& s, std::string_view bytes) {
  if (bytes.size() < s.offset || !bytes.substr(s.offset).starts_with(s.bytes)) return false;
  const std::string_view rest = bytes.substr(s.offset, 64);
  const bool printable = s.bytes.size() < 5 && std::ranges::all_of(s.bytes, [](unsigned char c) { return std::isprint(c) != 0; });
  return !printable || std::ranges::any_of(rest, [](unsigned char c) { return c < 9 || c >= 0x80; });
}

[[noreturn]] void NotText(const std::string& where, std::string_view what, std::string_view advice) {
  Throw(ErrorCode::kInput, "{}: not text: looks like {}; {}", where, what, advice);
}

size_t BadBytes(std::string_view text) {
  size_t bad = 0;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = DecodeUtf8(text.substr(at, 4));
    if (!step.valid && !(step.truncated && at + static_cast<size_t>(step.length) == text.size())) bad += static_cast<size_t>(step.length);
    at += static_cast<size_t>(step.length);
  }
  return bad;
}

void CheckCharacters(std::string_view bytes, const std::string& where, size_t allowed) {
  const auto zeros = static_cast<size_t>(std::ranges::count(bytes, '\0'));
  if (zeros > bytes.size() / 5) NotText(where, "UTF-16 or UTF-32 text without a mark, or binary data (zero bytes)", kConvert);
  if (zeros > 0) NotText(where, "binary data (zero bytes)", kGiveText);
  const size_t bad = BadBytes(bytes);
  if (bad <= std::max(allowed, bytes.size() / kBadShare)) return;
  NotText(where, fmt::format("another encoding than UTF-8, or binary data ({} of {} bytes)", bad, bytes.size()),
          "convert it (such as iconv -f LATIN1 -t UTF-8)");
}

std::string ReadHead(const std::filesystem::path& path, bool compressed) {
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  const auto stream = OpenByteStream({path, bytes, FileKind::kText, compressed}, 0, bytes);
  std::string head(kHeadBytes, '\0');
  size_t size = 0;
  for (size_t n = 1; n > 0 && size < kHeadBytes; size += n) n = stream->Read(head.data() + size, kHeadBytes - size);
  head.resize(size);
  return head;
}

// A frame, or one that decompressors skip.
bool IsZstd(const std::filesystem::path& path) {
  unsigned char magic[4] = {};
  std::ifstream in(path, std::ios::binary);
  if (!in.read(reinterpret_cast<char*>(magic), sizeof magic)) return false;
  const std::string_view bytes(reinterpret_cast<const char*>(magic), sizeof magic);
  return bytes == "\x28\xb5\x2f\xfd"sv || (magic[0] >> 4 == 5 && bytes.substr(1) == "\x2a\x4d\x18"sv);
}

struct Name {
  std::string ending;  // in small letters, before that of the compression
  bool zstd = false;
};

Name SplitName(const std::filesystem::path& path) {
  const auto small = [](std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
  };
  const std::string ending = small(path.extension().string());
  if (ending != ".zst" && ending != ".zstd") return {ending, false};
  return {small(path.stem().extension().string()), true};
}

enum class JsonShape { kNone, kLines, kArray, kOther };

// Of the first value. A first line longer than the head is taken for whole.
JsonShape ShapeOf(std::string_view head) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  const size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == head.npos) return JsonShape::kNone;
  head.remove_prefix(begin);
  if (head[0] == '[') return JsonShape::kArray;
  if (head[0] != '{') return JsonShape::kNone;
  const size_t end = head.find('\n');
  const bool cut = end == head.npos && begin + head.size() >= kHeadBytes - 3;
  return cut || Json::accept(head.substr(0, end)) ? JsonShape::kLines : JsonShape::kOther;
}

FileKind KindOfText(const std::filesystem::path& path, const std::string& ending, std::string_view head) {
  if (IsOneOf(ending, {".jsonl", ".ndjson", ".jsonlines", ".jl", ".ldjson"}) || head.empty()) return FileKind::kJsonLines;
  const JsonShape shape = ShapeOf(head);
  if (ending == ".json" && shape == JsonShape::kArray) return FileKind::kJsonArray;
  if (ending == ".json" && shape != JsonShape::kLines) {
    Throw(ErrorCode::kInput, "{}: {}, where an object per line or one array is read; write it so (jq -c . {} > NAME.jsonl)", path.string(),
          shape == JsonShape::kOther ? "JSON over several lines, or broken" : "its name says JSON and its content is none",
          path.filename().string());
  }
  if (!IsOneOf(ending, {".txt", ".text", ".md"})) return shape == JsonShape::kLines ? FileKind::kJsonLines : FileKind::kText;
  if (shape == JsonShape::kLines) {
    spdlog::warn("{}: its lines are JSON objects, and its name says text: read as plain text; name it .jsonl to read a field of them",
                 path.string());
  }
  return FileKind::kText;
}

// Formats whose files bear no mark of their own.
void CheckName(const std::filesystem::path& path, const std::string& ending) {
  if (IsOneOf(ending, {".gz", ".tgz", ".xz", ".bz2", ".zip", ".arrow", ".arrayrecord", ".tfrecord", ".safetensors", ".bin", ".idx", ".pt",
                       ".pth", ".pkl", ".npy", ".npz"}))
    Throw(ErrorCode::kInput, "{}: not text by its name; {}", path.string(), kGiveText);
}

}  // namespace

void CheckIsText(std::string_view bytes, const std::string& where) {
  for (const Signature& s : kSignatures) {
    if (Matches(s, bytes)) NotText(where, s.what, s.advice);
  }
  CheckCharacters(bytes, where, 0);
}

void CheckIsTextPart(std::string_view bytes, const std::string& where) { CheckCharacters(bytes, where, kBadCharacters); }

FileFormat DetectFormat(const std::filesystem::path& path) {
  const Name name = SplitName(path);
  const bool says_parquet = name.ending == ".parquet";
  if (std::filesystem::file_size(path) == 0 && !says_parquet) return {.compressed = name.zstd};
  const bool compressed = IsZstd(path);
  const std::string head = ReadHead(path, compressed);
  if (!compressed) RefuseLfsPointer(path, head);
  if (name.zstd && !compressed)
    Throw(ErrorCode::kInput, "{}: its name says zstd and its content is none: damaged, or compressed in another way", path.string());
  if (head.starts_with(kTokenFileMark) && !compressed) return {FileKind::kTokens};
  if (Matches(kParquet, head)) return {FileKind::kParquet, compressed};
  if (says_parquet) Throw(ErrorCode::kInput, "{}: its name says Parquet and its content is none", path.string());
  CheckIsText(head, path.string());
  CheckName(path, name.ending);
  return {KindOfText(path, name.ending, head), compressed};
}

}  // namespace fathom
