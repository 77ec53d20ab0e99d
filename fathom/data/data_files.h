// The files of a data set, and how they are cut into pieces that can be read and shuffled independently.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/data/file_format.h"

namespace fathom {

struct DataFile {
  std::filesystem::path path;
  int64_t bytes;  // on disk
  FileKind kind;
  bool compressed;  // with zstd
};

// paths: files, folders (all files below them, hidden ones not) and globs, separated by commas. Sorted by path, each file once.
// Throws Error(kInput) naming the flag that gave the paths: a part that matches nothing, nothing at all, a file that cannot be read, a
// format that is not read (DetectFormat).
std::vector<DataFile> FindDataFiles(const std::string& paths, std::string_view flag = "dataset_path");
// The same of files found already, in their order.
std::vector<DataFile> DescribeFiles(const std::vector<std::filesystem::path>& paths);

// Bytes [begin, end) of a file. Plain text is cut at the end of a paragraph or line where there is one; JSON lines anywhere (a line
// belongs to the extent in which it begins). A compressed file and a JSON array are one extent. Of a Parquet file: rows, one row group; of
// tokens: documents.
struct Extent {
  int64_t file, begin, end;
};

// All of a file: what its bytes or rows are needs not be known.
Extent WholeFile(int64_t file, const DataFile& described);

// May it be cut into extents of any size?
bool Divisible(const DataFile& file);

// Every byte or row of every file, in order, in extents of at most extent_bytes (larger when there would be more than 65,536 of them).
std::vector<Extent> CutIntoExtents(const std::vector<DataFile>& files, int64_t extent_bytes);

// Where the first part of a divisible file's extent ends that has at most `bytes` bytes, fewer than the extent: cut as CutIntoExtents cuts.
int64_t CutExtent(const DataFile& file, const Extent& extent, int64_t bytes);

// The length of a first part of text, at most limit: up to the last empty line in its second half, else the last line end there, else
// before the last character that would be cut in two. text.size() if that is not above limit.
size_t CutPoint(std::string_view text, size_t limit);

}  // namespace fathom
