#include "fathom/eval/samples_file.h"

#include <filesystem>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/safetensors/manifest.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSeal = "seal";
constexpr std::string_view kRowStart = R"({"answer":)";  // keys are in alphabetical order

bool IsRegularOrAbsent(const std::string& path) {
  std::error_code ignored;
  const auto type = fs::status(path, ignored).type();
  return path != "-" && (type == fs::file_type::regular || type == fs::file_type::not_found);
}

// Of a row without its seal, as it is written: who changes an answer by hand breaks it.
std::string SealOf(const Json& row) {
  Hasher hasher;
  hasher.Update(std::as_bytes(std::span<const char>(JsonText(row, -1))));
  return hasher.Hex();
}

std::string Line(const Json& row) {
  Json sealed = Json::parse(JsonText(row, -1));  // as it will be read
  sealed[kSeal] = SealOf(sealed);
  return JsonText(sealed, -1);
}

// Takes the seal off; false: it is not this row's.
bool Unseal(Json& row) {
  const Json seal = row[kSeal];
  row.erase(kSeal);
  return seal == SealOf(row);
}

// Its question, if the line is a row of this kind at all.
std::optional<QuestionKey> KeyOf(const Json& row) {
  if (!row.is_object()) return std::nullopt;
  const auto subject = row.find("subject"), index = row.find("index"), correct = row.find("correct"), hash = row.find("hash");
  for (const auto& field : {subject, index, correct, hash}) {
    if (field == row.end()) return std::nullopt;
  }
  if (!subject->is_string() || !index->is_number_integer() || !correct->is_boolean() || !hash->is_string()) return std::nullopt;
  return QuestionKey(subject->get<std::string>(), index->get<int64_t>());
}

}  // namespace

SampleRows ReadSamples(const std::string& path, const std::function<std::string(const QuestionKey&)>& hash_of) {
  SampleRows rows;
  if (path.empty() || !IsRegularOrAbsent(path) || !fs::exists(path)) return rows;
  const std::string text = ReadTextFile(path, size_t{1} << 40);
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    Json row =
        Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    const auto key = KeyOf(row);
    ++number;
    if (!key) Throw(ErrorCode::kInput, "{} line {}: no row of an evaluation; let samples_output name another file", path, number);
    const std::string hash = hash_of(*key);
    if (hash.empty() || row["hash"] != hash) {
      Throw(
          ErrorCode::kInput,
          "{} line {}: a row of another run (its model, settings or questions are not these): remove the file, or let samples_output name "
          "another one",
          path, number);
    }
    if (!Unseal(row))
      Throw(ErrorCode::kInput, "{} line {}: not as it was written: remove the line, and its question is asked again", path, number);
    if (!rows.emplace(*key, row).second) Throw(ErrorCode::kInput, "{} line {}: a question for the second time", path, number);
  }
  // What a killed run leaves behind its last whole row begins as one.
  const std::string_view rest = std::string_view(text).substr(text.find_last_of('\n') + 1), start = rest.substr(0, kRowStart.size());
  if (start != kRowStart.substr(0, start.size()))
    Throw(ErrorCode::kInput, "{} line {}: no row of an evaluation; let samples_output name another file", path, number + 1);
  return rows;
}

SamplesFile::SamplesFile(std::string path, const std::vector<const Json*>& kept)
    : path_(std::move(path)), regular_(IsRegularOrAbsent(path_)) {
  std::string text;
  for (const Json* row : kept) text += Line(*row);
  if (path_.empty()) return;
  if (regular_) {
    WriteFileAtomically(path_, text);
  } else {
    waiting_ = std::move(text);
  }
}

void SamplesFile::Add(const std::vector<Json>& rows) {
  if (path_.empty()) return;
  std::string text;
  for (const Json& row : rows) text += Line(row);
  if (regular_) return AppendToFile(path_, text);
  waiting_ += text;
}

void SamplesFile::Finish() {
  if (!path_.empty() && !regular_) WriteOutput(path_, waiting_);
}

}  // namespace fathom
