#include "fathom/data/data_files.h"

#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <string_view>
#include <system_error>

#include "fathom/base/error.h"
#include "fathom/data/file_format.h"
#include "fathom/data/token_file.h"
#include "fathom/parquet/parquet.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> SplitAtCommas(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::vector<fs::path> Glob(const std::string& pattern) {
  glob_t found = {};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return paths;
}

bool Hidden(const fs::path& path) { return path.filename().native().starts_with("."); }

void AddFolder(const fs::path& folder, std::string_view flag, std::vector<fs::path>& files) {
  std::error_code error;
  auto it = fs::recursive_directory_iterator(folder, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (Hidden(it->path())) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file()) {
      files.push_back(it->path());
    }
  }
  if (error) Throw(ErrorCode::kInput, "{}: folder {}: {}", flag, folder.string(), error.message());
}

DataFile Describe(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) Throw(ErrorCode::kInput, "{}: {}", path.string(), error.message());
  if (::access(path.c_str(), R_OK) != 0) Throw(ErrorCode::kInput, "{}: {}", path.string(), std::strerror(errno));
  const FileFormat format = DetectFormat(path);
  return {path, static_cast<int64_t>(bytes), format.kind, format.compressed};
}

// Where an extent of plain text that should reach `end` is cut: at a paragraph or line end among its last bytes if there is one.
int64_t CutNear(std::ifstream& in, const DataFile& file, int64_t begin, int64_t end) {
  constexpr int64_t kLookBack = 8192;
  const int64_t from = std::max(begin, end - kLookBack);
  std::string text(static_cast<size_t>(end - from) + 1, '\0');
  in.seekg(from);
  if (!in.read(text.data(), static_cast<int64_t>(text.size())))
    Throw(ErrorCode::kInput, "{}: can't read bytes {}..{}", file.path.string(), from, end);
  return from + static_cast<int64_t>(CutPoint(text, text.size() - 1));
}

void CutAtRowGroups(const DataFile& file, int64_t index, std::vector<Extent>& extents) {
  const auto parquet = ParquetFile::Open(file.path);
  int64_t row = 0;
  for (const ParquetRowGroup& group : parquet->metadata().groups) {
    if (group.rows > 0) extents.push_back({index, row, row + group.rows});
    row += group.rows;
  }
}

void CutDocuments(const DataFile& file, int64_t index, int64_t size, std::vector<Extent>& extents) {
  const auto tokens = TokenFile::Open(file.path);
  int64_t begin = 0, bytes = 0;
  for (int64_t i = 0; i < tokens->documents(); ++i) {
    bytes += static_cast<int64_t>(tokens->document(i).size_bytes());
    if (bytes < size && i + 1 < tokens->documents()) continue;
    extents.push_back({index, begin, i + 1});
    begin = i + 1;
    bytes = 0;
  }
}

// A line belongs to the extent in which it begins, so extents of JSON lines are cut anywhere.
void CutFile(const DataFile& file, int64_t index, int64_t size, std::vector<Extent>& extents) {
  if (file.kind == FileKind::kParquet && !file.compressed) return CutAtRowGroups(file, index, extents);
  if (file.kind == FileKind::kTokens) return CutDocuments(file, index, size, extents);
  if (!Divisible(file) || file.bytes <= size) {
    if (file.bytes > 0) extents.push_back(WholeFile(index, file));
    return;
  }
  std::ifstream in(file.path, std::ios::binary);
  for (int64_t begin = 0; begin < file.bytes;) {
    const int64_t nominal = begin + size;
    const int64_t end = nominal >= file.bytes               ? file.bytes
                        : file.kind == FileKind::kJsonLines ? nominal
                                                            : CutNear(in, file, begin, nominal);
    extents.push_back({index, begin, end});
    begin = end;
  }
}

}  // namespace

std::vector<DataFile> FindDataFiles(const std::string& list, std::string_view flag) {
  std::vector<fs::path> paths;
  for (const std::string& part : SplitAtCommas(list)) {
    const size_t before = paths.size();
    const std::vector<fs::path> found = fs::exists(part) ? std::vector<fs::path>{part} : Glob(part);
    for (const fs::path& path : found) {
      if (fs::is_directory(path)) {
        AddFolder(path, flag, paths);
      } else {
        paths.push_back(path);
      }
    }
    if (paths.size() == before) Throw(ErrorCode::kInput, "{}: no file matches {}", flag, part);
  }
  if (paths.empty()) Throw(ErrorCode::kInput, "{} is empty: give files, folders or globs, separated by commas", flag);
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return DescribeFiles(paths);
}

std::vector<DataFile> DescribeFiles(const std::vector<fs::path>& paths) {
  std::vector<DataFile> files;
  for (const fs::path& path : paths) files.push_back(Describe(path));
  return files;
}

Extent WholeFile(int64_t file, const DataFile& described) {
  return {
      file, 0,
      described.kind == FileKind::kParquet || described.kind == FileKind::kTokens ? std::numeric_limits<int64_t>::max() : described.bytes};
}

bool Divisible(const DataFile& file) { return !file.compressed && (file.kind == FileKind::kText || file.kind == FileKind::kJsonLines); }

std::vector<Extent> CutIntoExtents(const std::vector<DataFile>& files, int64_t extent_bytes) {
  int64_t total = 0;
  for (const DataFile& f : files) total += f.bytes;
  const int64_t size = std::max(extent_bytes, total / 65536);
  std::vector<Extent> extents;
  for (size_t i = 0; i < files.size(); ++i) CutFile(files[i], static_cast<int64_t>(i), size, extents);
  return extents;
}

int64_t CutExtent(const DataFile& file, const Extent& extent, int64_t bytes) {
  FATHOM_CHECK(bytes > 0 && bytes < extent.end - extent.begin && Divisible(file));
  if (file.kind == FileKind::kJsonLines) return extent.begin + bytes;
  std::ifstream in(file.path, std::ios::binary);
  return CutNear(in, file, extent.begin, extent.begin + bytes);
}

size_t CutPoint(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text.size();
  const std::string_view half = text.substr(limit / 2, limit - limit / 2);
  for (const std::string_view end : {"\n\n", "\n"}) {
    const size_t found = half.rfind(end);
    if (found != std::string_view::npos) return limit / 2 + found + end.size();
  }
  size_t cut = limit;
  while (cut > limit - 4 && cut > 1 && (static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) --cut;
  return cut;
}

}  // namespace fathom
