#include "fathom/data/csv.h"

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  std::vector<CsvRow> Run() {
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
    std::vector<CsvRow> rows;
    while (at_ < text_.size()) {
      if (!TakeLineEnd()) rows.push_back(Row());
    }
    return rows;
  }

 private:
  CsvRow Row() {
    CsvRow row{{}, line_};
    do {
      row.fields.push_back(Field());
    } while (TakeComma());
    if (at_ < text_.size()) TakeLineEnd();
    return row;
  }

  // A quote opens a quoted part only at the beginning; what stands between its end and the comma belongs to the field.
  std::string Field() {
    std::string field;
    if (at_ < text_.size() && text_[at_] == '"') TakeQuoted(field);
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    field += text_.substr(at_, end - at_);
    at_ = end;
    return field;
  }

  void TakeQuoted(std::string& field) {
    const int64_t opened = line_;
    for (++at_;;) {
      const size_t quote = text_.find('"', at_);
      if (quote == text_.npos) Throw(ErrorCode::kInput, "{} line {}: a quote that never ends", where_, opened);
      const std::string_view part = text_.substr(at_, quote - at_);
      field += part;
      line_ += std::ranges::count(part, '\n');
      at_ = quote + 1;
      if (at_ == text_.size() || text_[at_] != '"') return;
      field += '"';
      ++at_;
    }
  }

  bool TakeComma() {
    const bool comma = at_ < text_.size() && text_[at_] == ',';
    if (comma) ++at_;
    return comma;
  }

  bool TakeLineEnd() {
    if (text_[at_] != '\r' && text_[at_] != '\n') return false;
    at_ += text_.substr(at_).starts_with("\r\n") ? 2 : 1;
    ++line_;
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRow> ParseCsv(std::string_view text, const std::string& where) { return CsvParser(text, where).Run(); }

}  // namespace fathom
