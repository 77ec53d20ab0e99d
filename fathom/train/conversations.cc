#include "fathom/train/conversations.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/chat/chat_tokens.h"

namespace fathom {
namespace {

constexpr int64_t kRowsChecked = 1000, kBytesChecked = 4 << 20;  // of each file

struct Conversation {
  OrderedJson messages;
  ChatOptions options;
};

Conversation Parse(const ConversationConfig& config, const std::string& row) {
  Conversation c{ConversationOf(ParseOrderedJson(row, "the row"), config.form, config.which), {}};
  c.options.thinking = config.which == ChatTemplate::kV32 && ShowsReasoning(c.messages);
  return c;
}

ChatTokens Tokens(const ConversationConfig& config, const Tokenizer& tokenizer, const std::string& row) {
  const Conversation c = Parse(config, row);
  if (config.rounds_alone) return EncodeRounds(tokenizer, config.which, c.messages, c.options);
  return EncodeChat(tokenizer, RenderChat(config.which, c.messages, c.options));
}

// Every token but BOS.
void CountAll(const Tokenizer& tokenizer, ChatTokens& tokens) {
  for (size_t i = 0; i < tokens.ids.size(); ++i) tokens.mask[i] = tokens.ids[i] != tokenizer.bos_id() ? 1 : 0;
}

Sample Cut(const ConversationConfig& config, ChatTokens tokens) {
  const auto length = static_cast<size_t>(config.length);
  const bool too_long = tokens.ids.size() > length;
  if (too_long && !config.truncate) return {.fate = Sample::kTooLong};
  tokens.ids.resize(std::min(tokens.ids.size(), length));
  tokens.mask.resize(tokens.ids.size());
  // The first token is no target.
  if (tokens.mask.empty() || std::find(tokens.mask.begin() + 1, tokens.mask.end(), 1) == tokens.mask.end())
    return {.fate = Sample::kWithoutTarget};
  return {std::move(tokens.ids), std::move(tokens.mask), too_long ? Sample::kTruncated : Sample::kWhole};
}

}  // namespace

std::string DescribeSettings(const ConversationConfig& config) {
  return fmt::format("{} {} {} {} {}", static_cast<int>(config.form), ChatTemplateName(config.which), config.completion_only,
                     config.rounds_alone, config.truncate);
}

std::vector<std::string> RowColumns(const std::vector<std::string>& form_columns) {
  std::vector<std::string> columns = form_columns;
  columns.push_back("tools");
  return columns;
}

SampleFunction ConversationSampler(const ConversationConfig& config, std::shared_ptr<const Tokenizer> tokenizer) {
  return [config, tokenizer](const Document& document) {
    ChatTokens tokens = Tokens(config, *tokenizer, document.text);
    if (!config.completion_only) CountAll(*tokenizer, tokens);
    return Cut(config, std::move(tokens));
  };
}

void CheckFirstRows(const ConversationConfig& config, const StreamConfig& stream, bool skip_bad) {
  for (const DataFile& file : stream.files.empty() ? FindDataFiles(stream.dataset_path, stream.path_flag) : DescribeFiles(stream.files)) {
    const auto rows = OpenRows(file, WholeFile(0, file), stream.row_columns);
    Row row;
    int64_t bytes = 0, count = 0;
    for (; count < kRowsChecked && bytes < kBytesChecked && rows->Next(&row); ++count) {
      bytes += static_cast<int64_t>(row.json.size());
      try {
        const Conversation c = Parse(config, row.json);
        RenderChat(config.which, c.messages, c.options);
      } catch (const Error& e) {
        if (!skip_bad) Throw(e.code(), "{}: {}", DescribeRow(file, row.place), e.what());
      }
    }
    if (count == 0) Throw(ErrorCode::kInput, "{}: has no rows", file.path.string());
  }
}

}  // namespace fathom
