#include "fathom/data/document_reader.h"

#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/data/file_format.h"

namespace fathom {

DocumentReader::DocumentReader(const DataFile& file, const Extent& extent, std::string text_field, size_t part_bytes,
                               std::vector<std::string> row_columns)
    : file_(file), extent_(extent), text_field_(std::move(text_field)), part_bytes_(part_bytes), row_columns_(std::move(row_columns)) {
  if (file_.kind == FileKind::kTokens && row_columns_.empty())
    Throw(ErrorCode::kInput, "{}: tokens, where text is read; dataset_type=tokens trains on them", file.path.string());
  if (file_.kind == FileKind::kText && row_columns_.empty()) {
    plain_.emplace(OpenByteStream(file, extent.begin, extent.end), extent.begin);
  } else {
    rows_ = OpenRows(file, extent, row_columns_.empty() ? std::vector{text_field_} : row_columns_);
  }
}

bool DocumentReader::Next(Document* document) { return plain_ ? NextPart(document) : NextRow(document); }

bool DocumentReader::NextPart(Document* document) {
  while (plain_->rest().size() <= part_bytes_ && plain_->Fill()) {
  }
  const std::string_view rest = plain_->rest();
  if (rest.empty()) return false;
  const size_t n = CutPoint(rest, part_bytes_);
  CheckIsTextPart(rest.substr(0, n), file_.path.string());
  document->text.assign(rest.substr(0, n));
  document->place = plain_->offset();
  document->ends = n == rest.size() && (file_.compressed || extent_.end == file_.bytes);
  plain_->Drop(n);
  return true;
}

bool DocumentReader::NextRow(Document* document) {
  if (!rows_->Next(&row_)) return false;
  document->ends = true;
  document->place = row_.place;
  if (!row_columns_.empty()) {
    std::swap(document->text, row_.json);
    return true;
  }
  try {
    const Json json = ParseJson(row_.json, "the row");
    const auto field = json.is_object() ? json.find(text_field_) : json.end();
    if (field == json.end() || !field->is_string())
      Throw(ErrorCode::kInput, "no string \"{}\"; train_data_columns (evaluating text: eval_data_columns) names the field with the text",
            text_field_);
    document->text = field->get<std::string>();
  } catch (const Error& e) {
    Throw(e.code(), "{}: {}", DescribeRow(file_, row_.place), e.what());
  }
  return true;
}

}  // namespace fathom
