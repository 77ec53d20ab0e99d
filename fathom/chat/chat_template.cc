#include "fathom/chat/chat_template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/chat/message.h"

namespace fathom {
namespace {

// What a template says and what it doesn't, with spacing, escaped newlines and the dashes of {%- -%} taken away and quotes made equal.
struct Signature {
  ChatTemplate which;
  std::string_view name;
  std::vector<std::string_view> says, never;
};

const std::vector<Signature>& Signatures() {
  static const std::vector<Signature> signatures = {
      {ChatTemplate::kV2,
       "v2",
       {"'User:'+message['content']", "'Assistant:'+message['content']+eos_token", "'Assistant:'}}"},
       {"<｜User｜>", "tool"}},
      {ChatTemplate::kV3,
       "v3",
       {"is_first_sp", "'<｜User｜>'+message['content']}}", "message['content']isnone", "'<｜Assistant｜><｜tool▁calls▁begin｜>",
        "add_generation_promptandnotns.is_tool%}{{'<｜Assistant｜>'}}"},
       {"is_last_user", "think>", "tojson"}},
      {ChatTemplate::kV3March,
       "v3-0324",
       {"is_first_sp", "is_last_user", "'<｜User｜>'+message['content']+'<｜Assistant｜>'", "message['tool_calls']isnotnone",
        "add_generation_promptandnotns.is_last_userandnotns.is_tool"},
       {"think>", "tojson"}},
      {ChatTemplate::kR1,
       "r1",
       {"is_first_sp", "'tool_calls'inmessage", "split('</think>')[-1]", "'<｜Assistant｜><think>'}}"},
       {"is_last_user", "tojson"}},
      {ChatTemplate::kV31,
       "v3.1",
       {"is_first_sp", "is_last_user", "'<｜Assistant｜></think>'", "split('</think>',1)[1]", "message['prefix']"},
       {"<think></think>", "tojson", "is_only_sys", "```json"}},
      {ChatTemplate::kV32, "v3.2", {}, {}},  // has no Jinja template
  };
  return signatures;
}

std::string Squash(std::string_view jinja) {
  std::string out;
  for (size_t i = 0; i < jinja.size(); ++i) {
    const char c = jinja[i], next = i + 1 < jinja.size() ? jinja[i + 1] : '\0';
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
    if (c == '\\' && next == 'n') {
      ++i;
      continue;
    }
    const bool after_open = out.ends_with("{%") || out.ends_with("{{");
    if (c == '-' && (after_open || next == '%' || next == '}')) continue;
    out += c == '"' ? '\'' : c;
  }
  return out;
}

bool Fits(const Signature& signature, std::string_view squashed) {
  const auto says = [&](std::string_view words) { return squashed.find(words) != squashed.npos; };
  return !signature.says.empty() && std::ranges::all_of(signature.says, says) && std::ranges::none_of(signature.never, says);
}

bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// The template's text: a string, or, of several with names, the one called default.
std::optional<std::string> TemplateText(const Json& root) {
  const Json entry = root.value("chat_template", Json());
  if (entry.is_string()) return entry.get<std::string>();
  if (!entry.is_array()) return std::nullopt;
  for (const Json& one : entry) {
    if (one.is_object() && one.value("name", Json()) == "default" && one.value("template", Json()).is_string()) return one["template"];
  }
  return std::nullopt;
}

bool IsV32(const std::filesystem::path& dir) {
  if (Exists(dir / "encoding" / "encoding_dsv32.py")) return true;
  if (!Exists(dir / "config.json")) return false;
  const Json config = ReadJsonFile(dir / "config.json");
  return config.is_object() && config.value("model_type", Json()) == "deepseek_v32";
}

std::vector<Message> Messages(const OrderedJson& context, const OrderedJson& messages) {
  std::vector<Message> all;
  for (const OrderedJson* part : {&context, &messages}) {
    if (!part->is_array()) Throw(ErrorCode::kInput, "\"{}\" is no array of messages", part == &context ? "context" : "messages");
    for (const OrderedJson& message : *part) all.emplace_back(message, all.size());
  }
  return all;
}

}  // namespace

std::string_view ChatTemplateName(ChatTemplate which) { return std::ranges::find(Signatures(), which, &Signature::which)->name; }

std::string ChatTemplateNames() {
  std::vector<std::string_view> names;
  for (const Signature& signature : Signatures()) names.push_back(signature.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<ChatTemplate> FindChatTemplate(std::string_view name) {
  const auto found = std::ranges::find(Signatures(), name, &Signature::name);
  if (found == Signatures().end()) return std::nullopt;
  return found->which;
}

ChatTemplate RecogniseChatTemplate(std::string_view jinja, const std::string& where) {
  const std::string squashed = Squash(jinja);
  for (const Signature& signature : Signatures()) {
    if (Fits(signature, squashed)) return signature.which;
  }
  Throw(ErrorCode::kInput, "{}: this chat template is none that fathom knows; choose one with chat_template= ({})", where,
        ChatTemplateNames());
}

ChatTemplate CheckpointChatTemplate(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path dir = std::filesystem::is_directory(path, ignored) ? path : path.parent_path();
  const auto alone = dir / "chat_template.jinja", config = dir / "tokenizer_config.json";
  if (Exists(alone)) return RecogniseChatTemplate(ReadTextFile(alone), alone.string());
  const Json root = Exists(config) ? ReadJsonFile(config) : Json();
  if (const auto text = root.is_object() ? TemplateText(root) : std::nullopt) return RecogniseChatTemplate(*text, config.string());
  if (IsV32(dir)) return ChatTemplate::kV32;
  Throw(ErrorCode::kInput, "{}: names no chat template; choose one with chat_template= ({})", dir.string(), ChatTemplateNames());
}

ChatTemplate ChooseChatTemplate(const std::string& name, const std::filesystem::path& path, const std::filesystem::path& dir) {
  if (!name.empty()) {
    const auto found = FindChatTemplate(name);
    if (!found) Throw(ErrorCode::kUsage, "chat_template={}: allowed are {}", name, ChatTemplateNames());
    return *found;
  }
  return path.empty() ? CheckpointChatTemplate(dir) : RecogniseChatTemplate(ReadTextFile(path), path.string());
}

RenderedChat RenderChat(ChatTemplate which, const OrderedJson& messages, const ChatOptions& options, const OrderedJson& context) {
  const std::vector<Message> all = Messages(context, messages);
  if (which == ChatTemplate::kV32) return RenderV32(all, context.size(), options);
  if (!context.empty()) Throw(ErrorCode::kInput, "\"context\" is for v3.2 only, not for {}", ChatTemplateName(which));
  return RenderJinja(which, all, options);
}

}  // namespace fathom
