// Charts of a report, as SVG that needs no script to be read.
#pragma once

#include <string>
#include <vector>

#include "fathom/report/run_record.h"

namespace fathom {

struct ChartLine {
  std::string label;
  int color;  // class c0, c1, ... of the page's style
  bool dashed = false;
  Series points;
};
struct Chart {
  std::string title, unit;
  std::vector<ChartLine> lines;
  double scale = 1;  // what values are multiplied by before they are drawn
};

// A card with the chart, its legend and each line's last value; empty if no line has a point. Long lines are drawn as the mean of
// neighbours within the band that these span. Steps whose value is not finite are marked at the upper edge.
std::string DrawChart(const Chart& chart);

// Shares of one layer's experts over steps, brightest where an expert gets three times its even share: an image and its caption.
std::string DrawExperts(const ExpertHistory& history);

std::string EscapeHtml(std::string_view text);

}  // namespace fathom
