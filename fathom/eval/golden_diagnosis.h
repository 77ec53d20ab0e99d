// After a miss of `check golden`: the layer where the first hidden state parts, and the known fault that explains the folder's logits.
#pragma once

#include <optional>
#include <vector>

#include "fathom/eval/diagnose_logits.h"
#include "fathom/eval/golden.h"

namespace fathom {

struct GoldenPlace {
  int64_t layer;       // -1: the embedding
  int64_t row, token;  // of the sequences of short_ids, from 0
};
// The first of the arrays short_hidden.0, .1, ... beyond its bound; nothing: none is.
std::optional<GoldenPlace> FirstHiddenState(const GoldenCase& golden, const GoldenArrays& got);

struct GoldenDiagnosis {
  std::vector<TriedFault> tried;
  std::optional<TriedFault> cause;
};
// Known faults against short_logits and mid_logits; where those are within their bounds and the MTP module's are not, mtp_before_norm (the
// module is fed with the stream before the final norm). Nothing is tried where neither misses. after_each() is called after each run.
GoldenDiagnosis DiagnoseGolden(const GoldenCase& golden, const std::vector<GoldenRow>& rows, FunctionRef<void()> after_each);

}  // namespace fathom
