// fathom tokenizer chat: conversations to text and ids, completions back to messages.
#include <optional>

#include "apps/command.h"
#include "apps/json_rows.h"
#include "fathom/base/clock.h"
#include "fathom/base/file.h"
#include "fathom/chat/chat_tokens.h"
#include "fathom/chat/completion.h"

namespace fathom {
namespace {

using ChatRow = JsonRow<OrderedJson>;

// The template of rows that name none: chat_template=, else the checkpoint's, looked up when the first row asks.
class TemplateChoice {
 public:
  explicit TemplateChoice(const RunConfig& config) : config_(config) {}

  ChatTemplate Of(const OrderedJson& row) {
    const auto name = row.find("template");
    if (name == row.end()) return Default();
    const auto found = name->is_string() ? FindChatTemplate(name->get_ref<const std::string&>()) : std::nullopt;
    if (!found) Throw(ErrorCode::kInput, "\"template\" is {}, none of {}", DumpLikePython(*name), ChatTemplateNames());
    return *found;
  }

 private:
  ChatTemplate Default() {
    if (!default_) {
      default_ =
          ChooseChatTemplate(config_.String("chat_template"), config_.String("chat_template_path"), config_.String("tokenizer_path"));
    }
    return *default_;
  }

  const RunConfig& config_;
  std::optional<ChatTemplate> default_;
};

bool Flag(const OrderedJson& row, const char* name, bool otherwise) {
  const auto it = row.find(name);
  if (it == row.end() || it->is_null()) return otherwise;
  if (!it->is_boolean()) Throw(ErrorCode::kInput, "\"{}\" is {}, not true or false", name, DumpLikePython(*it));
  return it->get<bool>();
}

bool Thinking(const OrderedJson& row) {
  const auto mode = row.find("thinking_mode");
  if (mode == row.end() || mode->is_null()) return Flag(row, "thinking", false);
  if (*mode != "chat" && *mode != "thinking")
    Throw(ErrorCode::kInput, "\"thinking_mode\" is {}, not chat or thinking", DumpLikePython(*mode));
  return *mode == "thinking";
}

const OrderedJson& Member(const OrderedJson& row, const char* name) {
  const auto it = row.find(name);
  if (it == row.end()) Throw(ErrorCode::kInput, "no \"{}\"", name);
  return *it;
}

// A row that has been understood.
struct Request {
  ChatTemplate which;
  ChatOptions options;
};

Request ReadRequest(const OrderedJson& row, TemplateChoice& templates) {
  return {templates.Of(row),
          {.add_generation_prompt = Flag(row, "add_generation_prompt", false),
           .thinking = Thinking(row),
           .drop_thinking = Flag(row, "drop_thinking", true)}};
}

OrderedJson Render(const OrderedJson& row, const Request& request, const Tokenizer& tokenizer, bool mask) {
  const auto context = row.find("context");
  const RenderedChat chat = RenderChat(request.which, Member(row, "messages"), request.options,
                                       context == row.end() || context->is_null() ? OrderedJson::array() : *context);
  if (!mask) return {{"text", chat.text}, {"ids", tokenizer.Encode(chat.text)}};
  const ChatTokens tokens = EncodeChat(tokenizer, chat);
  return {{"text", chat.text}, {"ids", tokens.ids}, {"mask", tokens.mask}};
}

OrderedJson Parse(const OrderedJson& row, const Request& request) {
  const OrderedJson& text = Member(row, "text");
  if (!text.is_string()) Throw(ErrorCode::kInput, "\"text\" is not a string");
  return CompletionMessage(ParseCompletion(request.which, text.get_ref<const std::string&>(), request.options.thinking));
}

OrderedJson RowOfText(const std::string& text, bool parse) {
  if (parse) return {{"text", text}};
  OrderedJson messages = OrderedJson::array();
  messages.push_back({{"role", "user"}, {"content", text}});
  return {{"messages", messages}, {"add_generation_prompt", true}};
}

int Chat(const RunConfig& config) {
  const bool parse = config.Bool("parse"), mask = config.Bool("mask");
  if (parse && mask) Throw(ErrorCode::kUsage, "parse=true mask=true: a completion has no mask; give one of them");
  auto rows = ReadJsonRows<OrderedJson>(
      config, [&](const std::string& text) { return RowOfText(text, parse); },
      [](std::string_view line, const std::string& where) { return ParseOrderedJson(line, where); });
  const Tokenizer tokenizer = LoadTokenizer(config);
  TemplateChoice templates(config);
  std::string out;
  size_t refused = 0;  // by the template: an answer like another
  const Stopwatch clock;
  for (ChatRow& row : rows) {
    std::optional<Request> request;
    try {
      if (row.error.empty()) request = ReadRequest(row.value, templates);
    } catch (const Error& e) {
      row.Refuse(e.what());
    }
    if (!request) {
      AppendError(row.error, out);
      continue;
    }
    try {
      out += DumpLikePython(parse ? Parse(row.value, *request) : Render(row.value, *request, tokenizer, mask)) + "\n";
    } catch (const Error& e) {
      ++refused;
      AppendError(fmt::format("{}: {}", row.where, e.what()), out);
    }
  }
  const double seconds = clock.Seconds();
  WriteOutput(OutputPath(config), out);
  WriteResult(config, {{"rows", rows.size()}, {"errors", CountErrors(rows)}, {"refused", refused}, {"seconds", seconds}});
  CheckRows(rows);
  return 0;
}

}  // namespace

Command TokenizerChatCommand() {
  return {"tokenizer chat",
          "conversations to text and ids by the model's chat template, or completions back",
          {"tokenizer_path", "chat_template", "chat_template_path", "input", "text", "output", "mask", "parse"},
          Chat};
}

}  // namespace fathom
