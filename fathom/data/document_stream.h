// All documents of a data set in the order of training: shuffled by epoch, restartable at any of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/data/document_reader.h"

namespace fathom {

enum class Split { kAll, kTrain, kHeldOut };

struct StreamConfig {
  std::string dataset_path;
  std::vector<std::filesystem::path> files;  // in its place, where it is not empty
  std::string path_flag = "dataset_path";    // names the paths in errors
  std::string text_field = "text";           // of rows
  std::vector<std::string> row_columns;      // not empty: documents are rows with these columns, see DocumentReader
  uint64_t seed = 0;
  bool shuffle = true;
  double held_out_fraction = 0;  // of the bytes, or of the documents where rows are few or a file can't be cut; by seed
  Split split = Split::kAll;
  int64_t extent_bytes = 64 << 10;  // the unit of the shuffle, and the longest part of plain text
};

// The document that comes next.
struct DocumentPosition {
  int64_t epoch = 0;
  int64_t extent = 0;    // in the epoch's order
  int64_t document = 0;  // of the extent
  friend bool operator==(const DocumentPosition&, const DocumentPosition&) = default;
};

class DocumentStream {
 public:
  // Finds and cuts the files. Throws Error(kInput) as FindDataFiles.
  explicit DocumentStream(const StreamConfig& config);

  // Overwrites *document with the next one that has text; false at the end of the epoch.
  bool Next(Document* document);
  const DocumentPosition& position() const { return position_; }
  void Seek(const DocumentPosition& position);

  // "PATH, line 3": where a row came from.
  std::string Describe(const Document& document) const;

  // Of the files' names and sizes: whether a saved position means the same here.
  uint64_t files_hash() const { return files_hash_; }

 private:
  void ChooseHeldOut();
  void HoldOutExtents();
  bool InSplit(int64_t extent_index, int64_t document) const;
  void StartEpoch(int64_t epoch);
  void OpenExtent();

  StreamConfig config_;
  std::vector<DataFile> files_;
  std::vector<Extent> extents_;
  std::vector<bool> held_out_extents_;  // by index; empty: documents are chosen one by one
  std::vector<int64_t> order_;          // of the extents in this epoch
  uint64_t files_hash_ = 0;
  DocumentPosition position_;
  std::optional<DocumentReader> reader_;  // at position_
  int64_t file_ = 0;                      // that it reads
};

// The field of JSON lines that a flag such as train_data_columns names. Throws Error(kUsage) unless it names exactly one.
std::string OneColumn(const std::vector<std::string>& columns, std::string_view flag);

// A permutation of 0..n-1, a pure function of (seed, name).
std::vector<int64_t> ShuffledOrder(int64_t n, uint64_t seed, std::string_view name);

}  // namespace fathom
