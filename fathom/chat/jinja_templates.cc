// The templates that DeepSeek publishes as Jinja, each a class with the same state and the same quirks. docs/chat.md names them.
#include <memory>

#include "fathom/chat/message.h"

namespace fathom {
namespace {

constexpr std::string_view kUser = "<｜User｜>", kAssistant = "<｜Assistant｜>", kThink = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>", kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>", kSeparator = "<｜tool▁sep｜>";
constexpr std::string_view kOutputsBegin = "<｜tool▁outputs▁begin｜>", kOutputsEnd = "<｜tool▁outputs▁end｜>";
constexpr std::string_view kOutputBegin = "<｜tool▁output▁begin｜>", kOutputEnd = "<｜tool▁output▁end｜>";

class JinjaTemplate {
 public:
  explicit JinjaTemplate(const ChatOptions& options) : options_(options) {}
  virtual ~JinjaTemplate() = default;

  RenderedChat Render(const std::vector<Message>& messages) {
    Begin(messages);
    for (const Message& message : messages) {  // roles that no template knows are passed over, as there
      if (message.Is("user")) User(message);
      if (message.Is("assistant")) Assistant(message);
      if (message.Is("tool")) Tool(message);
      if (message.Is("system")) System(message);
    }
    End();
    return out_.Take();
  }

 protected:
  // All system messages stand at the beginning, with a blank line between.
  virtual void Begin(const std::vector<Message>& messages) {
    out_.Add(kBosText);
    std::string_view separator;
    for (const Message& message : messages) {
      if (!message.Is("system")) continue;
      out_.Add(separator, message.Text("content"));
      separator = "\n\n";
    }
  }
  virtual void User(const Message& message) = 0;
  virtual void Assistant(const Message& message) = 0;
  virtual void Tool(const Message& message) = 0;
  virtual void System(const Message& /*message*/) {}
  virtual void End() = 0;

  static void Require(const Entry& call, std::string_view* type, std::string_view* name, std::string_view* arguments) {
    if (type != nullptr) *type = call.Text("type");
    const Entry function = call.At("function");
    *name = function.Text("name");
    *arguments = function.Text("arguments");
  }
  // The arguments as a fenced block of JSON: V3, V3-0324, R1.
  void FencedCall(const Entry& call) {
    std::string_view type, name, arguments;
    Require(call, &type, &name, &arguments);
    out_.Answer(kCallBegin, type, kSeparator, name, "\n```json\n", arguments, "\n```", kCallEnd);
  }
  void Output(std::string_view before, const Message& message) {
    is_tool_ = true;
    out_.Add(is_output_first_ ? kOutputsBegin : before, kOutputBegin, message.Text("content"), kOutputEnd);
    is_output_first_ = false;
  }
  void CloseOutputs() {
    if (is_tool_) out_.Add(kOutputsEnd);
  }
  // An answer right after tool outputs.
  void AnswerToOutputs(const Message& message) {
    out_.Answer(message.Text("content"), kEosText);
    is_tool_ = false;
  }

  ChatOptions options_;
  ChatWriter out_;
  bool is_first_ = false;        // a tool call has been written
  bool is_tool_ = false;         // the last message was a tool's
  bool is_output_first_ = true;  // the next tool output opens the block of outputs
  bool is_last_user_ = false;    // the last message was a user's
};

class V2 : public JinjaTemplate {
  using JinjaTemplate::JinjaTemplate;
  void Begin(const std::vector<Message>& /*messages*/) override { out_.Add(kBosText); }
  void User(const Message& message) override { out_.Add("User: ", message.Text("content"), "\n\n"); }
  void Assistant(const Message& message) override {
    out_.Add("Assistant:");
    out_.Answer(" ", message.Text("content"), kEosText);  // the prompt ends before the space
  }
  void Tool(const Message& /*message*/) override {}
  void System(const Message& message) override { out_.Add(message.Text("content"), "\n\n"); }
  void End() override {
    if (options_.add_generation_prompt) out_.Add("Assistant:");
  }
};

class V3 : public JinjaTemplate {
  using JinjaTemplate::JinjaTemplate;
  void User(const Message& message) override {
    is_tool_ = false;
    out_.Add(kUser, message.Text("content"));
  }
  void Assistant(const Message& message) override {
    if (message.IsNull("content")) return Calls(message);
    if (is_tool_) {
      out_.Add(kOutputsEnd);
      return AnswerToOutputs(message);
    }
    out_.Add(kAssistant);
    out_.Answer(message.Text("content"), kEosText);
  }
  // Only the second and later calls of a conversation are closed.
  void Calls(const Message& message) {
    is_tool_ = false;
    for (const Entry& call : message.Items("tool_calls")) {
      if (!is_first_) out_.Add(kAssistant);
      out_.Answer(is_first_ ? "\n" : kCallsBegin);
      FencedCall(call);
      if (is_first_) out_.Answer(kCallsEnd, kEosText);
      is_first_ = true;
    }
  }
  void Tool(const Message& message) override { Output("\n", message); }
  void End() override {
    CloseOutputs();
    if (options_.add_generation_prompt && !is_tool_) out_.Add(kAssistant);
  }
};

class V3March : public JinjaTemplate {
  using JinjaTemplate::JinjaTemplate;
  void User(const Message& message) override {
    is_tool_ = is_first_ = false;
    is_last_user_ = true;
    out_.Add(kUser, message.Text("content"), kAssistant);
  }
  void Assistant(const Message& message) override {
    is_last_user_ = false;
    CloseOutputs();
    if (message.Has("tool_calls") && !message.IsNull("tool_calls")) return Calls(message);
    AnswerToOutputs(message);
  }
  void Calls(const Message& message) {
    is_tool_ = is_first_ = false;
    is_output_first_ = true;
    for (const Entry& call : message.Items("tool_calls")) {
      if (!is_first_ && !message.IsNull("content")) out_.Answer(message.Text("content"));
      out_.Answer(is_first_ ? "\n" : kCallsBegin);
      FencedCall(call);
      is_first_ = true;
    }
    out_.Answer(kCallsEnd, kEosText);
  }
  void Tool(const Message& message) override {
    is_last_user_ = false;
    Output("\n", message);
  }
  void End() override {
    CloseOutputs();
    if (options_.add_generation_prompt && !is_last_user_ && !is_tool_) out_.Add(kAssistant);
  }
};

class R1 : public JinjaTemplate {
  using JinjaTemplate::JinjaTemplate;
  void User(const Message& message) override {
    is_tool_ = false;
    out_.Add(kUser, message.Text("content"));
  }
  void Assistant(const Message& message) override {
    if (message.Has("tool_calls")) return Calls(message);
    if (is_tool_) {
      out_.Add(kOutputsEnd);
      return AnswerToOutputs(message);
    }
    std::string_view content = message.Text("content");
    if (const size_t at = content.rfind(kThinkEnd); at != content.npos) content.remove_prefix(at + kThinkEnd.size());
    out_.Add(kAssistant);
    out_.Answer(content, kEosText);
  }
  void Calls(const Message& message) {
    is_tool_ = false;
    for (const Entry& call : message.Items("tool_calls")) {
      if (!is_first_) out_.Add(kAssistant);
      if (!is_first_ && !message.IsNull("content")) out_.Answer(message.Text("content"));
      out_.Answer(is_first_ ? "\n" : kCallsBegin);
      FencedCall(call);
      is_first_ = true;
    }
    out_.Answer(kCallsEnd, kEosText);
  }
  void Tool(const Message& message) override { Output("", message); }
  void End() override {
    CloseOutputs();
    if (options_.add_generation_prompt && !is_tool_) out_.Add(kAssistant, kThink, "\n");
  }
};

class V31 : public JinjaTemplate {
  using JinjaTemplate::JinjaTemplate;
  void User(const Message& message) override {
    is_tool_ = false;
    is_last_user_ = true;
    out_.Add(kUser, message.Text("content"));
  }
  void Assistant(const Message& message) override {
    const bool calls = message.Has("tool_calls") && !message.IsNull("tool_calls");
    if (is_last_user_) out_.Add(kAssistant, !calls && message.IsTrue("prefix") && options_.thinking ? kThink : kThinkEnd);
    is_last_user_ = false;
    if (calls) return Calls(message);
    if (is_tool_) return AnswerToOutputs(message);
    std::string_view content = message.Text("content");
    if (const size_t at = content.find(kThinkEnd); at != content.npos) content.remove_prefix(at + kThinkEnd.size());
    out_.Answer(content, kEosText);
  }
  void Calls(const Message& message) {
    is_tool_ = false;
    const std::vector<Entry> calls = message.Items("tool_calls");
    if (!calls.empty()) out_.Answer(message.IsNull("content") ? "" : message.Text("content"), kCallsBegin);
    for (const Entry& call : calls) {
      std::string_view name, arguments;
      Require(call, nullptr, &name, &arguments);
      out_.Answer(kCallBegin, name, kSeparator, arguments, kCallEnd);
    }
    out_.Answer(kCallsEnd, kEosText);
  }
  void Tool(const Message& message) override {
    is_last_user_ = false;
    is_tool_ = true;
    out_.Add(kOutputBegin, message.Text("content"), kOutputEnd);
  }
  void End() override {
    if (options_.add_generation_prompt && is_last_user_ && !is_tool_) out_.Add(kAssistant, options_.thinking ? kThink : kThinkEnd);
  }
};

std::unique_ptr<JinjaTemplate> Make(ChatTemplate which, const ChatOptions& options) {
  if (which == ChatTemplate::kV2) return std::make_unique<V2>(options);
  if (which == ChatTemplate::kV3) return std::make_unique<V3>(options);
  if (which == ChatTemplate::kV3March) return std::make_unique<V3March>(options);
  if (which == ChatTemplate::kR1) return std::make_unique<R1>(options);
  return std::make_unique<V31>(options);
}

}  // namespace

RenderedChat RenderJinja(ChatTemplate which, const std::vector<Message>& messages, const ChatOptions& options) {
  return Make(which, options)->Render(messages);
}

}  // namespace fathom
