#include "fathom/report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <optional>

#include "fathom/report/chart.h"
#include "fathom/report/page_style.h"

namespace fathom {
namespace {

constexpr int kColors = 6;
constexpr size_t kSamples = 12;  // of a run

// One scalar of every run; `held_out` is drawn beside it, dashed.
struct Plot {
  std::string title, unit, scalar, held_out = "";
  double scale = 1;
};

const std::vector<Plot>& LearningPlots() {
  static const std::vector<Plot> plots = {
      {"Loss", "nats per token", "learning/loss", "eval/avg_loss"},
      {"Held-out bits per byte", "", "eval/bits_per_byte"},
      {"Language model's loss", "nats per token", "learning/lm_loss"},
      {"MTP loss", "", "learning/mtp_loss"},
      {"MTP acceptance", "%", "eval/avg_mtp_acceptance_rate_percent"},
      {"Indexer's KL divergence", "nats per token and layer", "learning/indexer_kl"},
      {"Indexer loss", "weighted", "learning/indexer_loss"},
      {"Balance loss", "", "learning/moe_lb_loss"},
      {"Learning rate", "", "learning/current_learning_rate"},
      {"Gradient norm", "before clipping", "learning/raw_grad_norm"},
      {"Parameter norm", "", "learning/param_norm"},
  };
  return plots;
}
const std::vector<Plot>& SpeedPlots() {
  static const std::vector<Plot> plots = {
      {"Tokens per second", "", "perf/per_device_tokens_per_sec"},
      {"Share of the machine's product rate", "%", "perf/fraction_of_peak", "", 100},
      {"Seconds per step", "", "perf/step_time_seconds"},
      {"Share of time spent waiting for data", "%", "perf/data_wait_share", "", 100},
      {"Seconds of communication", "", "perf/comm_seconds"},
  };
  return plots;
}

int ColorOf(size_t i) { return static_cast<int>(i % kColors); }

std::string Draw(const Plot& plot, std::span<const RunRecord> runs) {
  Chart chart{plot.title, plot.unit, {}, plot.scale};
  for (size_t i = 0; i < runs.size(); ++i) {
    const bool one = runs.size() == 1;
    chart.lines.push_back({one ? plot.held_out.empty() ? "last" : "training" : runs[i].name, ColorOf(i), false, runs[i].Of(plot.scalar)});
    if (plot.held_out.empty()) continue;
    chart.lines.push_back({one ? "held out" : runs[i].name + ", held out", ColorOf(one ? 1 : i), true, runs[i].Of(plot.held_out)});
  }
  return DrawChart(chart);
}

// Balance of one run's experts: a line per layer would hide what a mean and the worst layer say.
std::string DrawBalance(std::span<const RunRecord> runs) {
  Chart chart{"Busiest expert of any layer", "x the even share", {}};
  for (size_t i = 0; i < runs.size(); ++i) {
    std::map<int64_t, double> worst;
    for (const auto& [name, series] : runs[i].scalars) {
      if (!name.starts_with("moe/load_max_to_mean/")) continue;
      for (const auto& [step, value] : series) worst[step] = std::max(worst[step], value);
    }
    chart.lines.push_back({runs.size() == 1 ? "last" : runs[i].name, ColorOf(i), false, Series(worst.begin(), worst.end())});
  }
  return DrawChart(chart);
}

std::string Section(const std::string& title, const std::string& cards) {
  return cards.empty() ? "" : fmt::format("<h2>{}</h2><div class='grid-of-cards'>{}</div>\n", title, cards);
}

std::string Experts(std::span<const RunRecord> runs) {
  std::string html = Section("Experts", DrawBalance(runs));
  for (const RunRecord& run : runs) {
    std::string images;
    for (const ExpertHistory& layer : run.experts) images += "<section class='card'>" + DrawExperts(layer) + "</section>";
    if (images.empty()) continue;
    html += fmt::format(
        "<details{}><summary>Load per expert over steps{}</summary><p class='legend'>A row per expert, a column per noted step; dark: "
        "idle, "
        "green: its even share and more, yellow: three times that or more.</p><div class='grid-of-cards'>{}</div></details>\n",
        run.experts.size() <= 8 ? " open" : "", runs.size() > 1 ? ": " + EscapeHtml(run.name) : "", images);
  }
  return html;
}

// Of many samples as many as a reader takes in, the first and the last among them.
std::vector<const TextSample*> SomeOf(const std::vector<TextSample>& samples) {
  std::vector<const TextSample*> some;
  const size_t shown = std::min(samples.size(), kSamples);
  for (size_t i = 0; i < shown; ++i) some.push_back(&samples[shown == 1 ? 0 : i * (samples.size() - 1) / (shown - 1)]);
  return some;
}

std::string Samples(std::span<const RunRecord> runs) {
  std::string html;
  for (const RunRecord& run : runs) {
    if (run.samples.empty()) continue;
    const std::string& prompt = run.samples.front().prompt;
    html += fmt::format("<details open><summary>What the model writes{}{}</summary><table>",
                        prompt.empty() ? "" : " after \"" + EscapeHtml(prompt) + "\"", runs.size() > 1 ? ": " + EscapeHtml(run.name) : "");
    for (const TextSample* sample : SomeOf(run.samples))
      html += fmt::format("<tr><td class='n'>{}</td><td><div class='text'>{}</div></td></tr>\n", sample->step, EscapeHtml(sample->text));
    html += "</table></details>\n";
  }
  return html.empty() ? "" : "<h2>Samples</h2>" + html;
}

std::string Text(const Json& value) { return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump(); }
std::string Text(const Json& object, const char* key) { return object.is_object() && object.contains(key) ? Text(object[key]) : ""; }

// How the run came to its end, and whether that is one to worry about.
std::pair<std::string, bool> EndOf(const RunRecord& run) {
  if (!run.about.is_object()) return {"no record of its end", false};
  if (!run.about.contains("ended") || run.about["ended"].is_null()) return {"no end is recorded: it runs still, or was killed", true};
  const Json& ended = run.about["ended"];
  const std::string why = Text(ended, "why");
  return {why.empty() ? "complete" : why, ended.value("code", 1) != 0};
}

std::string Last(const Series& series, const char* format = "{:.5g}") {
  return series.empty() ? "" : fmt::format(fmt::runtime(format), series.back().second);
}

std::string Median(Series series, const char* format, double scale = 1) {
  if (series.empty()) return "";
  const auto middle = series.begin() + std::ssize(series) / 2;
  std::ranges::nth_element(series, middle, {}, &std::pair<int64_t, double>::second);
  return fmt::format(fmt::runtime(format), middle->second * scale);
}

// A row per fact, a column per run.
std::string Summary(std::span<const RunRecord> runs) {
  using Cell = std::function<std::string(const RunRecord&)>;
  const std::vector<std::pair<std::string, Cell>> facts = {
      {"model", [](const RunRecord& r) { return EscapeHtml(Text(r.about, "model")); }},
      {"steps",
       [](const RunRecord& r) {
         const std::string planned = Text(r.about, "steps");
         return fmt::format("{}{}", r.last_step + 1, planned.empty() ? "" : " of " + planned);
       }},
      {"end",
       [](const RunRecord& r) {
         const auto [text, bad] = EndOf(r);
         return fmt::format("<span{}>{}</span>", bad ? " class='bad'" : "", EscapeHtml(text));
       }},
      {"last loss", [](const RunRecord& r) { return Last(r.Of("learning/loss")); }},
      {"held-out loss", [](const RunRecord& r) { return Last(r.Of("eval/avg_loss")); }},
      {"held-out bits per byte", [](const RunRecord& r) { return Last(r.Of("eval/bits_per_byte")); }},
      {"tokens/s (median)", [](const RunRecord& r) { return Median(r.Of("perf/per_device_tokens_per_sec"), "{:.0f}"); }},
      {"of the machine's product rate", [](const RunRecord& r) { return Median(r.Of("perf/fraction_of_peak"), "{:.3g} %", 100); }},
      {"machine", [](const RunRecord& r) { return EscapeHtml(Text(r.about, "machine")); }},
      {"started", [](const RunRecord& r) { return EscapeHtml(Text(r.about, "started")); }},
  };
  std::string html = "<div class='scroll'><table><tr><th></th>";
  for (size_t i = 0; i < runs.size(); ++i)
    html += fmt::format("<th class='legend'><i class='b{}'></i><b>{}</b></th>", ColorOf(i), EscapeHtml(runs[i].name));
  html += "</tr>\n";
  for (const auto& [name, cell] : facts) {
    std::string row;
    bool any = false;
    for (const RunRecord& run : runs) {
      const std::string text = cell(run);
      any |= !text.empty();
      row += fmt::format("<td>{}</td>", text);
    }
    if (any) html += fmt::format("<tr><th>{}</th>{}</tr>\n", name, row);
  }
  return html + "</table></div>\n";
}

std::string Rows(const Json& rows, const char* left, const char* right) {
  std::string html = "<div class='scroll'><table>";
  for (const Json& row : rows)
    html += fmt::format("<tr><td>{}</td><td class='n'>{}</td></tr>", EscapeHtml(Text(row, left)), EscapeHtml(Text(row, right)));
  return html + "</table></div>";
}

std::string Flags(const Json& flags) {
  std::string html = "<div class='scroll'><table>";
  for (const auto& [name, flag] : flags.items())
    html += fmt::format("<tr><td>{}</td><td>{}</td><td><small>{}</small></td></tr>", EscapeHtml(name), EscapeHtml(Text(flag, "value")),
                        EscapeHtml(Text(flag, "source")));
  return html + "</table></div>";
}

std::string Details(const RunRecord& run, bool named) {
  std::string html;
  const std::string name = named ? ": " + EscapeHtml(run.name) : "";
  if (run.unread_lines > 0) html += fmt::format("<p class='bad'>{} lines of metrics.jsonl are torn{}</p>", run.unread_lines, name);
  if (!run.about.is_object()) return html;
  if (run.about.contains("memory"))
    html += fmt::format("<details open><summary>Memory{}</summary>{}</details>", name, Rows(run.about["memory"], "what", "size"));
  if (run.about.contains("flags")) html += fmt::format("<details><summary>Flags{}</summary>{}</details>", name, Flags(run.about["flags"]));
  return html;
}

// Names told apart by a number.
std::vector<RunRecord> Named(std::span<const RunRecord> runs) {
  std::vector<RunRecord> named(runs.begin(), runs.end());
  std::map<std::string, int> seen;
  for (RunRecord& run : named) {
    if (const int n = ++seen[run.name]; n > 1) run.name += fmt::format(" ({})", n);
  }
  return named;
}

}  // namespace

std::string ReportPage(std::span<const RunRecord> given) {
  const std::vector<RunRecord> runs = Named(given);
  const std::string title = runs.size() == 1 ? runs[0].name : fmt::format("{} runs", runs.size());
  std::string learning, speed, details;
  for (const Plot& plot : LearningPlots()) learning += Draw(plot, runs);
  for (const Plot& plot : SpeedPlots()) speed += Draw(plot, runs);
  for (const RunRecord& run : runs) details += Details(run, runs.size() > 1);
  return fmt::format(
             "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
             "content='width=device-width,initial-scale=1'>"
             "<meta name='color-scheme' content='light dark'><title>fathom: {0}</title><style>{1}</style></head><body><h1>{0}</h1>\n{2}",
             EscapeHtml(title), kPageStyle, Summary(runs)) +
         Section("Learning", learning) + Samples(runs) + Experts(runs) + Section("Speed", speed) +
         (details.empty() ? "" : "<h2>Details</h2>" + details) +
         fmt::format("<div id='tip'></div><script>{}</script></body></html>\n", kPageScript);
}

}  // namespace fathom
