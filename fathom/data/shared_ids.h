// Lists of tokens that one rank of a machine makes for all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fathom/parallel/host.h"

namespace fathom {

using IdLists = std::vector<std::vector<int32_t>>;

class SharedIds {
 public:
  // What `make` gives on the first rank of a machine's, for all of them, in memory that they share. Collective; throws as `make` there, and
  // Error(kResource).
  static SharedIds FromFirst(const Comm& host, const std::function<IdLists()>& make);
  size_t size() const { return ends_.size(); }
  std::span<const int32_t> operator[](size_t i) const {
    const int64_t begin = i == 0 ? 0 : ends_[i - 1];
    return ids_.subspan(static_cast<size_t>(begin), static_cast<size_t>(ends_[i] - begin));
  }

 private:
  explicit SharedIds(std::shared_ptr<const SharedMemory> memory);

  std::shared_ptr<const SharedMemory> memory_;  // the number of lists, their ends, the ids of all
  std::span<const int64_t> ends_;
  std::span<const int32_t> ids_;
};

// The same where copies will do.
IdLists IdsFromFirst(const Comm& host, const std::function<IdLists()>& make);

}  // namespace fathom
