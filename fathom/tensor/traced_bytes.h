// The bytes of a pass over memory, for a trace.
#pragma once

#include <initializer_list>

#include "fathom/base/trace.h"
#include "fathom/tensor/view.h"

namespace fathom {

// Each of the views is read or written once (one that is named twice: both).
inline void AddBytes(TraceSlice& slice, std::initializer_list<ConstView> views) {
  if (!slice.recorded()) return;
  double bytes = 0;
  for (const ConstView& v : views) bytes += v.empty() ? 0 : static_cast<double>(v.NumBytes());
  slice.AddWork(0, bytes);
}

}  // namespace fathom
