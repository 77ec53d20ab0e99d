#include "fathom/eval/mmlu_data.h"

#include <fmt/format.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/data/csv.h"
#include "fathom/data/file_format.h"
#include "fathom/eval/mmlu_parquet.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChoices = 4;
constexpr size_t kFields = kChoices + 2;

bool IsHeader(const CsvRow& row) { return row.fields.front() == "question" && row.fields.back() == "answer"; }

int64_t ReadAnswer(const std::string& text, const std::string& where) {
  const char c = text.size() == 1 ? text[0] : '?';
  if (c >= '0' && c < '0' + kChoices) return c - '0';
  if (c >= 'A' && c < 'A' + kChoices) return c - 'A';
  Throw(ErrorCode::kInput, "{}: the answer is \"{}\": 0 to 3 or A to D is needed", where, text);
}

ChoiceQuestion ReadQuestion(CsvRow row, const std::string& file) {
  const std::string where = fmt::format("{} line {}", file, row.line);
  if (row.fields.size() != kFields)
    Throw(ErrorCode::kInput, "{}: {} columns: a question, four choices and an answer are needed", where, row.fields.size());
  const int64_t answer = ReadAnswer(row.fields.back(), where);
  return {row.fields.front(), {row.fields.begin() + 1, row.fields.end() - 1}, answer};
}

std::vector<ChoiceQuestion> ReadQuestions(const fs::path& file) {
  const std::string text = ReadTextFile(file);
  CheckIsText(text, file.string());
  std::vector<CsvRow> rows = ParseCsv(text, file.string());
  std::vector<ChoiceQuestion> questions;
  for (CsvRow& row : rows) {
    if (&row == &rows.front() && IsHeader(row) && row.fields.size() == kFields) continue;
    questions.push_back(ReadQuestion(std::move(row), file.string()));
  }
  if (questions.empty()) Throw(ErrorCode::kInput, "{}: no question in it", file.string());
  return questions;
}

struct SplitQuestions {
  std::vector<ChoiceQuestion> questions;
  std::string where;  // the file, for messages
};

// A split's questions, at least one.
SplitQuestions ReadSplit(const MmluDataOptions& options, const std::string& subject, const char* split) {
  const fs::path csv = options.dir / split / fmt::format("{}_{}.csv", subject, split);
  const auto parquet = fs::exists(csv) ? std::vector<fs::path>() : FindMmluParquet(options.dir, subject, split);
  if (parquet.empty()) return {ReadQuestions(csv), csv.string()};
  SplitQuestions read{ReadMmluParquet(parquet, subject), parquet.front().string()};
  if (read.questions.empty()) Throw(ErrorCode::kInput, "{}: no question about {} in it", read.where, subject);
  return read;
}

ChoiceSubject ReadSubject(const MmluDataOptions& options, const std::string& name) {
  ChoiceSubject subject{.name = name};
  subject.questions = ReadSplit(options, name, "test").questions;
  subject.available = std::ssize(subject.questions);
  if (options.limit > 0 && options.limit < subject.available) subject.questions.resize(static_cast<size_t>(options.limit));
  if (options.examples == 0) return subject;
  auto [examples, where] = ReadSplit(options, name, "dev");
  if (std::ssize(examples) < options.examples)
    Throw(ErrorCode::kInput, "{}: {} examples; num_shots={} needs more", where, examples.size(), options.examples);
  subject.examples = std::move(examples);
  subject.examples.resize(static_cast<size_t>(options.examples));
  return subject;
}

}  // namespace

std::vector<ChoiceSubject> ReadMmlu(const MmluDataOptions& options) {
  if (!fs::is_directory(options.dir)) Throw(ErrorCode::kInput, "data_dir={}: no such folder", options.dir.string());
  std::vector<ChoiceSubject> subjects;
  for (const std::string& name : options.subjects) subjects.push_back(ReadSubject(options, name));
  return subjects;
}

}  // namespace fathom
