// V3.2 has no Jinja template but an encoder of its own; its tool calls are a markup called DSML. docs/chat.md.
#include <algorithm>

#include "fathom/chat/message.h"

namespace fathom {
namespace {

constexpr std::string_view kUser = "<｜User｜>", kAssistant = "<｜Assistant｜>", kThink = "<think>", kThinkEnd = "</think>";

// What the model was told about tools, word for word.
constexpr std::string_view kToolsText[] = {
    "## Tools\n\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<｜DSML｜function_calls>\" block like the following as part of your reply to the user:\n"
    "<｜DSML｜function_calls>\n"
    "<｜DSML｜invoke name=\"$FUNCTION_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "</｜DSML｜function_calls>\n\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON "
    "format. "
    "The \"string\" attribute should be set to \"true\" for string type parameters and \"false\" for other types (numbers, booleans, "
    "arrays, "
    "objects).\n\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an "
    "example:\n\n"
    "<｜DSML｜function_calls>\n"
    "...\n"
    "</｜DSML｜function_calls>\n\n"
    "<function_results>\n"
    "...\n"
    "</function_results>\n\n"
    "<think>...thinking about results</think>\n\n"
    "Here are the functions available in JSONSchema format:\n"
    "<functions>\n",
    "\n</functions>\n"};

class V32Encoder {
 public:
  V32Encoder(const std::vector<Message>& messages, bool thinking) : messages_(messages), thinking_(thinking) {
    const auto asks = [](const Message& m) { return m.Is("user") || m.Is("developer"); };
    const auto last = std::find_if(messages.rbegin(), messages.rend(), asks);
    last_user_ = messages.rend() - last - 1;
  }

  // The original leaves messages of developers and of unknown roles before the last user's out with the reasoning, then counts them and
  // fails.
  void CheckNothingDropped() const {
    for (int64_t i = 0; i < last_user_; ++i) {
      const Message& m = messages_[static_cast<size_t>(i)];
      if (!m.Is("user") && !m.Is("system") && !m.Is("tool") && !m.Is("assistant"))
        m.Fail("drop_thinking does not allow the role \"{}\" before the last user message", m.role());
    }
  }

  RenderedChat Render(size_t first) {
    if (first == 0) out_.Add(kBosText);
    for (size_t i = first; i < messages_.size(); ++i) One(static_cast<int64_t>(i));
    return out_.Take();
  }

 private:
  void One(int64_t index) {
    const Message& m = messages_[static_cast<size_t>(index)];
    if (m.Is("system")) {
      out_.Add(TextOrNone(m, ""));
      Extras(m);
    } else if (m.Is("developer")) {
      Developer(m, index);
    } else if (m.Is("user")) {
      out_.Add(kUser, TextOrNone(m, "None"));  // Python's word for an absent content
      AskForAnswer(index == last_user_);
    } else if (m.Is("tool")) {
      Tool(m, index);
    } else if (m.Is("assistant")) {
      Assistant(m, index);
    } else {
      m.Fail("the role \"{}\" is unknown to v3.2", m.role());
    }
  }

  static std::string_view TextOrNone(const Entry& m, std::string_view none) {
    return !m.Has("content") || m.IsNull("content") ? none : m.Text("content");
  }
  void AskForAnswer(bool may_think) { out_.Add(kAssistant, may_think && thinking_ ? kThink : kThinkEnd); }

  // Tools and the wanted form of the answer.
  void Extras(const Message& m) {
    if (m.IsTrue("tools")) {
      out_.Add("\n\n", kToolsText[0]);
      std::string_view separator;
      for (const Entry& tool : m.Items("tools")) {
        out_.Add(separator, DumpLikePython(tool.At("function").value()));
        separator = "\n";
      }
      out_.Add(kToolsText[1]);
    }
    if (m.IsTrue("response_format")) {
      out_.Add("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n",
               DumpLikePython(*m.Find("response_format")));
    }
  }

  void Developer(const Message& m, int64_t index) {
    if (!m.IsTrue("content")) m.Fail("a developer's message needs a content");
    out_.Add(kUser);
    Extras(m);
    out_.Add("\n\n# The user's message is: ", m.Text("content"));
    AskForAnswer(index == last_user_);
  }

  // The message whose calls this tool answers, and the how-manieth of them. The original counts back in a list whose item -1 is the last.
  void Tool(const Message& m, int64_t index) {
    int64_t caller = index - 1;
    while (caller >= 0 && messages_[static_cast<size_t>(caller)].Is("tool")) --caller;
    const Message& assistant = caller < 0 ? messages_.back() : messages_[static_cast<size_t>(caller)];
    if (index > 0 && !(caller >= 0 && assistant.Is("assistant"))) m.Fail("a tool's output without an assistant's message before it");
    const size_t order = static_cast<size_t>(index - caller);
    const size_t calls = assistant.IsTrue("tool_calls") ? assistant.Items("tool_calls").size() : 0;
    if (calls < order) m.Fail("a tool's output without a tool call");
    if (order == 1) out_.Add("\n\n<function_results>");
    out_.Add("\n<result>", TextOrNone(m, "None"), "</result>");
    if (order == calls) out_.Add("\n</function_results>\n\n", index >= last_user_ && thinking_ ? kThink : kThinkEnd);
  }

  void Assistant(const Message& m, int64_t index) {
    const bool calls = m.IsTrue("tool_calls");
    const std::string markup = calls ? CallsMarkup(m) : "";
    if (thinking_ && index > last_user_) {
      if (!m.IsTrue("reasoning_content") && !calls) m.Fail("thinking: an answer needs reasoning_content or tool_calls");
      out_.Answer(m.IsTrue("reasoning_content") ? m.Text("reasoning_content") : "", kThinkEnd);
    }
    out_.Answer(TextOrNone(m, ""), markup, kEosText);
  }

  static std::string CallsMarkup(const Message& m) {
    std::string out = "\n\n<｜DSML｜function_calls>\n";
    for (const Entry& call : m.Items("tool_calls")) {
      const Entry function = call.At("function");
      out += fmt::format("<｜DSML｜invoke name=\"{}\">\n{}\n</｜DSML｜invoke>\n", function.Text("name"), Parameters(function));
    }
    return out + "</｜DSML｜function_calls>";
  }

  static std::string Parameters(const Entry& function) {
    const OrderedJson arguments = ParseOrderedJson(function.Text("arguments"), "the arguments of " + std::string(function.Text("name")));
    if (!arguments.is_object()) function.Fail("the arguments are no JSON object");
    std::string out;
    for (const auto& [key, value] : arguments.items()) {
      if (!out.empty()) out += '\n';
      const bool text = value.is_string();
      out += fmt::format("<｜DSML｜parameter name=\"{}\" string=\"{}\">{}</｜DSML｜parameter>", key, text,
                         text ? value.get_ref<const std::string&>() : DumpLikePython(value));
    }
    return out;
  }

  const std::vector<Message>& messages_;
  bool thinking_;
  int64_t last_user_;  // index of the last message of a user or developer; -1: none
  ChatWriter out_;
};

}  // namespace

RenderedChat RenderV32(const std::vector<Message>& messages, size_t first, const ChatOptions& options) {
  V32Encoder encoder(messages, options.thinking);
  if (options.thinking && options.drop_thinking && first < messages.size()) encoder.CheckNothingDropped();
  return encoder.Render(first);
}

}  // namespace fathom
