#include "fathom/eval/mmlu_parquet.h"

#include <fmt/format.h>

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/parquet/parquet.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChoices = 4;

std::vector<fs::path> FilesOf(const fs::path& folder, const std::string& split) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".parquet" && path.filename().string().starts_with(split + "-")) files.push_back(path);
  }
  std::ranges::sort(files);
  return files;
}

ChoiceQuestion ReadQuestion(const Json& row, const std::string& where) {
  const Json question = row.value("question", Json()), choices = row.value("choices", Json()), answer = row.value("answer", Json());
  const bool four =
      choices.is_array() && std::ssize(choices) == kChoices && std::ranges::all_of(choices, [](const Json& c) { return c.is_string(); });
  if (!question.is_string() || !four) Throw(ErrorCode::kInput, "{}: a question and four choices are needed", where);
  if (!answer.is_number_integer() || answer.get<int64_t>() < 0 || answer.get<int64_t>() >= kChoices)
    Throw(ErrorCode::kInput, "{}: the answer is {}: 0 to 3 is needed", where, answer.dump());
  return {question.get<std::string>(), choices.get<std::vector<std::string>>(), answer.get<int64_t>()};
}

}  // namespace

std::vector<fs::path> FindMmluParquet(const fs::path& dir, const std::string& subject, const std::string& split) {
  std::vector<fs::path> files = FilesOf(dir / subject, split);
  return files.empty() ? FilesOf(dir / "all", split) : files;
}

std::vector<ChoiceQuestion> ReadMmluParquet(const std::vector<fs::path>& files, const std::string& subject) {
  std::vector<ChoiceQuestion> questions;
  for (const fs::path& path : files) {
    const auto file = ParquetFile::Open(path);
    int64_t number = 0;
    for (size_t group = 0; group < file->metadata().groups.size(); ++group) {
      ParquetRows rows(file, group, {"question", "subject", "choices", "answer"});
      for (std::string text; rows.Next(&text); ++number) {
        const std::string where = fmt::format("{} row {}", path.string(), number);
        const Json row = ParseJson(text, where);
        const auto named = row.find("subject");
        if (named == row.end() || *named == subject) questions.push_back(ReadQuestion(row, where));
      }
    }
  }
  return questions;
}

}  // namespace fathom
