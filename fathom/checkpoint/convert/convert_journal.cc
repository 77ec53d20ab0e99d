#include "fathom/checkpoint/convert/convert_journal.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

void Empty(const fs::path& folder) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder); !error && entry != fs::directory_iterator(); ++entry)
    fs::remove_all(entry->path(), error);
  if (error) Throw(ErrorCode::kResource, "{}: cannot remove what an earlier run left: {}", folder.string(), error.message());
}

// Lines that are whole; a killed process may have left a part of one.
std::vector<std::string> WholeLines(const fs::path& path) {
  std::vector<std::string> lines;
  if (!fs::is_regular_file(fs::symlink_status(path))) return lines;
  const std::string text = ReadTextFile(path);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  return lines;
}

}  // namespace

FileStamps::FileStamps(std::vector<fs::path> files) {
  std::ranges::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  for (const fs::path& file : files) stamps_.push_back(StampOf(file));
}

FileStamps::Stamp FileStamps::StampOf(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) Throw(ErrorCode::kInput, "{}: cannot read: {}", path.string(), std::strerror(errno));
  return {path, static_cast<uint64_t>(info.st_size), int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

Json FileStamps::ToJson() const {
  Json json = Json::array();
  for (const Stamp& stamp : stamps_) json.push_back({fs::absolute(stamp.path).lexically_normal().string(), stamp.size, stamp.changed});
  return json;
}

void FileStamps::CheckUnchanged() const {
  for (const Stamp& stamp : stamps_) {
    if (StampOf(stamp.path) != stamp)
      Throw(ErrorCode::kInput, "{}: changed while it was converted; run the conversion again", stamp.path.string());
  }
}

uint64_t FileStamps::LatestChange() const {
  int64_t latest = 0;
  for (const Stamp& stamp : stamps_) latest = std::max(latest, stamp.changed);
  return static_cast<uint64_t>(latest);
}

ConvertJournal::ConvertJournal(const fs::path& folder, const Json& work) : path_(folder / "journal.jsonl") {
  const std::string identity = work.dump(-1, ' ', true, Json::error_handler_t::replace);
  const auto lines = WholeLines(path_);
  const bool same = !lines.empty() && lines[0] == identity;
  if (!same) Empty(folder);
  for (size_t i = 1; same && i < lines.size(); ++i) {
    const Json json = Json::parse(lines[i], nullptr, false);
    if (json.is_object() && json.contains("unit") && json.contains("record")) done_[json["unit"].get<std::string>()] = json["record"];
  }
  // Written anew, so that no half line of a killed process stays in front of the next one.
  std::string text = identity + "\n";
  for (const auto& [unit, record] : done_) text += JsonText({{"unit", unit}, {"record", record}}, -1);
  WriteFileAtomically(path_, text);
}

const Json* ConvertJournal::Find(const std::string& unit) const {
  const auto found = done_.find(unit);
  return found == done_.end() ? nullptr : &found->second;
}

void ConvertJournal::Add(const std::string& unit, const Json& record) {
  AppendToFile(path_, JsonText({{"unit", unit}, {"record", record}}, -1));
  done_[unit] = record;
}

void ConvertJournal::Remove() {
  std::error_code ignored;
  fs::remove(path_, ignored);
}

}  // namespace fathom
