// What the flags of a run imply, and which of them exclude each other.
#pragma once

#include "fathom/config/run_config.h"

namespace fathom {

// Fills flags whose default stands for another's value (steps and learning_rate_schedule_steps, mu_dtype, run_name ...); source "derived".
void DeriveFlags(RunConfig& config);

// Throws Error(kUsage) for flags that contradict each other, and for URLs where a path is needed.
void CheckFlagsTogether(const RunConfig& config);

// Throws Error(kUsage) for a flag that would change the command's result ("train", "check logits") and can't be honoured: one of
// maxtext_refused.yml, in a section that names the command, whose value is not the neutral one.
void CheckHonoured(std::string_view command, const RunConfig& config);

// Throws Error(kUsage) if path is a URL (gs://bucket/x): what names it in the message.
void CheckLocal(const std::string& path, const std::string& what);

}  // namespace fathom
