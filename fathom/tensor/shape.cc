#include "fathom/tensor/shape.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  FATHOM_CHECK(rank_ <= kMaxRank, "rank {} of {}", rank_, kMaxRank);
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

int64_t Shape::NumElements() const {
  int64_t n = 1;
  for (const int64_t d : dims()) n *= d;
  return n;
}

std::string Shape::ToString() const { return fmt::format("[{}]", fmt::join(dims(), ", ")); }

bool operator==(const Shape& a, const Shape& b) { return std::ranges::equal(a.dims(), b.dims()); }

}  // namespace fathom
