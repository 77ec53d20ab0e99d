// The report of one or several runs: one HTML file that needs nothing else, for screens of any width, dark or light, and for paper.
#pragma once

#include <span>
#include <string>

#include "fathom/report/run_record.h"

namespace fathom {

// Runs in the order given; their names are told apart where they are equal.
std::string ReportPage(std::span<const RunRecord> runs);

}  // namespace fathom
