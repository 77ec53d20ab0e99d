// fathom plan of decoding, also on ranks that are not here: the mesh of the flags, or the best one for so many hosts.
#pragma once

#include "apps/plan_report.h"

namespace fathom {

// Memory of the rank that takes the most, bytes that it sends, time of a prompt and of a token. A prompt is as long as prompt_ids or
// max_prefill_predict_length says. Throws Error as the command would.
void PlanDecoding(const RunConfig& flags, Machine& machine, Report& report);

}  // namespace fathom
