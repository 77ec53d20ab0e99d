// What a model answered to every question, a JSON line each, written as the work goes on: a run that was killed goes on behind it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

// Subject and index of a question.
using QuestionKey = std::pair<std::string, int64_t>;
using SampleRows = std::map<QuestionKey, Json>;

// The rows of an earlier run of the same work: each must have the "hash" that hash_of gives for its question ("": not asked). A last line
// without an end is left out. Nothing if path is empty, absent or no regular file. Throws Error(kInput), naming file and line: anything
// else.
SampleRows ReadSamples(const std::string& path, const std::function<std::string(const QuestionKey&)>& hash_of);

class SamplesFile {
 public:
  // path: empty: none; "-", a pipe or a device gets everything at the end. Writes the rows that are kept. Throws Error(kResource).
  SamplesFile(std::string path, const std::vector<const Json*>& kept);
  // Rows that are on disk when this returns.
  void Add(const std::vector<Json>& rows);
  // At the end, once.
  void Finish();

 private:
  std::string path_, waiting_;
  bool regular_;
};

}  // namespace fathom
