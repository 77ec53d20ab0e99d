// What `check logits` and `check golden` say of the known faults that they tried.
#pragma once

#include <optional>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/eval/diagnose_logits.h"

namespace fathom {

// A line per fault, then the one that explains the difference or that none does.
void PrintTried(const std::vector<TriedFault>& tried, const std::optional<TriedFault>& cause);

// {"tried": [{"cause", "max_kl"}], "cause"}; cause null: none explains the difference.
Json TriedJson(const std::vector<TriedFault>& tried, const std::optional<TriedFault>& cause);

}  // namespace fathom
