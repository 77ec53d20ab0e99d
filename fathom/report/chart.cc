#include "fathom/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fathom/report/bitmap.h"

namespace fathom {
namespace {

constexpr double kWidth = 440, kHeight = 230, kLeft = 52, kRight = 12, kTop = 12, kBottom = 30;
constexpr size_t kMostPoints = 220;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void Include(double x) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  bool empty() const { return low > high; }
  // A single value gets room around it.
  void Widen() {
    if (low < high) return;
    const double room = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= room;
    high += room;
  }
  double Place(double x) const { return (x - low) / (high - low); }
};

// Neighbouring points as one.
struct Bucket {
  double step, mean, low, high;
};

std::vector<Bucket> Buckets(const Series& points, double scale) {
  std::vector<Bucket> buckets;
  const size_t each = (points.size() + kMostPoints - 1) / kMostPoints;
  for (size_t begin = 0; begin < points.size(); begin += each) {
    Range range;
    double sum = 0, steps = 0, n = 0;
    for (size_t i = begin; i < std::min(points.size(), begin + each); ++i) {
      const double y = points[i].second * scale;
      if (!std::isfinite(y)) continue;
      range.Include(y);
      sum += y;
      steps += static_cast<double>(points[i].first);
      n += 1;
    }
    if (n > 0) buckets.push_back({steps / n, sum / n, range.low, range.high});
  }
  return buckets;
}

// A round distance between about `count` marks.
double TickStep(double span, int count) {
  const double rough = span / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

std::vector<double> Ticks(const Range& range, int count, bool whole) {
  double step = TickStep(range.high - range.low, count);
  if (whole) step = std::max(1.0, std::round(step));
  std::vector<double> ticks;
  for (double t = std::ceil(range.low / step - 1e-9) * step; t <= range.high + step * 1e-9; t += step) {
    ticks.push_back(std::abs(t) < step * 1e-9 ? 0 : t);
  }
  return ticks;
}

struct Frame {
  Range x, y;
  double X(double step) const { return kLeft + x.Place(step) * (kWidth - kLeft - kRight); }
  double Y(double value) const { return kTop + (1 - y.Place(value)) * (kHeight - kTop - kBottom); }
};

std::string DrawAxes(const Frame& frame) {
  std::string svg;
  for (const double t : Ticks(frame.y, 4, false)) {
    svg += fmt::format("<path class='grid' d='M{} {:.1f}H{}'/><text x='{}' y='{:.1f}' text-anchor='end'>{:.6g}</text>", kLeft, frame.Y(t),
                       kWidth - kRight, kLeft - 6, frame.Y(t) + 4, t);
  }
  for (const double t : Ticks(frame.x, 5, true)) {
    if (t < 0) continue;  // there is no such step
    svg += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{:.0f}</text>", frame.X(t), kHeight - 10, t);
  }
  return svg;
}

std::string DrawLine(const Frame& frame, const ChartLine& line, const std::vector<Bucket>& buckets, double scale) {
  std::string svg, path, upper, lower;
  bool band = false;
  for (const Bucket& b : buckets) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.X(b.step), frame.Y(b.mean));
    upper += fmt::format("{}{:.1f} {:.1f}", upper.empty() ? "M" : "L", frame.X(b.step), frame.Y(b.high));
    lower = fmt::format("L{:.1f} {:.1f}", frame.X(b.step), frame.Y(b.low)) + lower;
    band |= b.low < b.high;
  }
  if (band) svg += fmt::format("<path class='band f{}' d='{}{}Z'/>", line.color, upper, lower);
  if (buckets.size() == 1) {
    svg +=
        fmt::format("<circle class='f{}' cx='{:.1f}' cy='{:.1f}' r='4'/>", line.color, frame.X(buckets[0].step), frame.Y(buckets[0].mean));
  } else if (!buckets.empty()) {
    svg += fmt::format("<path class='line c{}{}' d='{}'/>", line.color, line.dashed ? " dashed" : "", path);
  }
  for (const auto& [step, value] : line.points) {
    if (std::isfinite(value * scale)) continue;
    svg += fmt::format("<path class='broken' d='M{0:.1f} {1}l-4 -8h8z'><title>step {2}: {3}</title></path>",
                       frame.X(static_cast<double>(step)), kTop, step, value);
  }
  return svg;
}

std::string Legend(const Chart& chart) {
  std::string html = "<p class='legend'>";
  for (const ChartLine& line : chart.lines) {
    if (line.points.empty()) continue;
    html += fmt::format("<span><i class='b{}{}'></i>{} <b>{:.5g}</b></span> ", line.color, line.dashed ? " dashed" : "",
                        EscapeHtml(line.label), line.points.back().second * chart.scale);
  }
  return html + "</p>";
}

// What the page's script shows under the pointer.
std::string PointsJson(const Chart& chart, const std::vector<std::vector<Bucket>>& buckets, const Frame& frame) {
  Json lines = Json::array();
  for (size_t i = 0; i < chart.lines.size(); ++i) {
    Json points = Json::array();
    for (const Bucket& b : buckets[i]) points.push_back({std::round(b.step), std::stod(fmt::format("{:.5g}", b.mean))});
    if (!points.empty()) lines.push_back({{"label", chart.lines[i].label}, {"points", points}});
  }
  return Json{{"low", frame.x.low}, {"high", frame.x.high}, {"lines", lines}}.dump();
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string DrawChart(const Chart& chart) {
  Frame frame;
  std::vector<std::vector<Bucket>> buckets;
  for (const ChartLine& line : chart.lines) {
    buckets.push_back(Buckets(line.points, chart.scale));
    for (const auto& [step, value] : line.points) frame.x.Include(static_cast<double>(step));
    for (const Bucket& b : buckets.back()) {
      frame.y.Include(b.low);
      frame.y.Include(b.high);
    }
  }
  if (frame.x.empty()) return "";
  if (frame.y.empty()) frame.y.Include(0);
  frame.x.Widen();
  frame.y.Widen();
  std::string svg = DrawAxes(frame);
  for (size_t i = 0; i < chart.lines.size(); ++i) svg += DrawLine(frame, chart.lines[i], buckets[i], chart.scale);
  return fmt::format(
      "<section class='card'><h3>{}{}</h3><svg viewBox='0 0 {} {}' role='img' aria-label='{} over steps' "
      "data-chart='{}'>{}</svg>{}</section>\n",
      EscapeHtml(chart.title), chart.unit.empty() ? "" : fmt::format(" <small>{}</small>", EscapeHtml(chart.unit)), kWidth, kHeight,
      EscapeHtml(chart.title), EscapeHtml(PointsJson(chart, buckets, frame)), svg, Legend(chart));
}

std::string DrawExperts(const ExpertHistory& history) {
  const auto width = static_cast<int>(history.counts.size()),
             height = static_cast<int>(history.counts.empty() ? 0 : history.counts[0].size());
  if (width == 0 || height == 0) return "";
  std::vector<uint8_t> pixels(static_cast<size_t>(width) * static_cast<size_t>(height));
  double most = 0;
  for (int x = 0; x < width; ++x) {
    const auto& column = history.counts[static_cast<size_t>(x)];
    const double even = std::max(1.0, std::accumulate(column.begin(), column.end(), 0.0)) / height;
    for (int y = 0; y < height; ++y) {
      const double load = column[static_cast<size_t>(y)] / even;
      most = std::max(most, load);
      pixels[static_cast<size_t>(y * width + x)] = static_cast<uint8_t>(std::clamp(load / 3, 0.0, 1.0) * 255);
    }
  }
  return fmt::format(
      "<figure><img alt='load of the experts of layer {0}' src='{1}'><figcaption>layer {0}: {2} experts, steps {3} to {4}; at most {5:.2f} "
      "x "
      "the even share</figcaption></figure>\n",
      history.layer, BitmapUrl(pixels, width, height), height, history.steps.front(), history.steps.back(), most);
}

}  // namespace fathom
