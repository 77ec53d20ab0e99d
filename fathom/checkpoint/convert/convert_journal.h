// What a conversion has finished, on disk: after a kill -9 the next run goes on behind it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

// Size and time of change of files, to see whether they are still what they were.
class FileStamps {
 public:
  explicit FileStamps(std::vector<std::filesystem::path> files);
  Json ToJson() const;
  // Throws Error(kInput) naming a file that is not as it was.
  void CheckUnchanged() const;
  // ns since 1970 of the latest change: a time that is the same in every run.
  uint64_t LatestChange() const;

 private:
  struct Stamp {
    std::filesystem::path path;
    uint64_t size;
    int64_t changed;  // ns since 1970
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  static Stamp StampOf(const std::filesystem::path& path);
  std::vector<Stamp> stamps_;
};

// folder/journal.jsonl: a first line that identifies the work (inputs and options), then a line per finished unit.
class ConvertJournal {
 public:
  // Empties the folder unless its journal is of the same work. Throws Error(kResource).
  ConvertJournal(const std::filesystem::path& folder, const Json& work);

  // The record of a finished unit; nullptr if it must be made.
  const Json* Find(const std::string& unit) const;
  // The unit is on disk: remembers that, synced.
  void Add(const std::string& unit, const Json& record);
  const std::map<std::string, Json>& done() const { return done_; }
  void Remove();

 private:
  std::filesystem::path path_;
  std::map<std::string, Json> done_;
};

}  // namespace fathom
