#include "fathom/chat/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/error.h"
#include "fathom/chat/test_data.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

OrderedJson Chat(const std::string& messages) { return ParseOrderedJson(messages, "test"); }

std::string Render(ChatTemplate which, const std::string& messages, const ChatOptions& options = {}) {
  return RenderChat(which, Chat(messages), options).text;
}

ChatOptions OptionsOf(const OrderedJson& row) {
  return {.add_generation_prompt = row.value("add_generation_prompt", false),
          .thinking = row.value("thinking", row.value("thinking_mode", "") == "thinking"),
          .drop_thinking = row.value("drop_thinking", true)};
}

TEST(ChatTemplate, RendersAndRefusesAsTheOriginals) {
  int errors = 0;
  for (const OrderedJson& row : ChatTestRows("render.jsonl")) {
    const auto render = [&] {
      return RenderChat(*FindChatTemplate(row["template"].get<std::string>()), row["messages"], OptionsOf(row),
                        row.value("context", OrderedJson::array()))
          .text;
    };
    if (row.contains("error")) {
      EXPECT_THROW(render(), Error) << row.dump();
      ++errors;
    } else {
      EXPECT_EQ(render(), row["text"].get<std::string>()) << row.dump();
    }
  }
  EXPECT_GE(errors, 20);
}

// V2's is not among the rows.
TEST(ChatTemplate, V2) {
  const std::string messages =
      R"([{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"assistant","content":"A"},{"role":"user","content":"V"}])";
  const std::string text = "<｜begin▁of▁sentence｜>S\n\nUser: U\n\nAssistant: A<｜end▁of▁sentence｜>User: V\n\n";
  EXPECT_EQ(Render(ChatTemplate::kV2, messages), text);
  EXPECT_EQ(Render(ChatTemplate::kV2, messages, {.add_generation_prompt = true}), text + "Assistant:");
  EXPECT_THROW(Render(ChatTemplate::kV2, R"([{"role":"user"}])"), Error);
}

TEST(ChatTemplate, AnswersAreMarked) {
  const std::string messages = R"([{"role":"user","content":"U"},{"role":"assistant","content":"A","reasoning_content":"R"},
                                   {"role":"user","content":"V"},{"role":"assistant","content":"","reasoning_content":"Q"}])";
  for (const ChatTemplate which : {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kV3March, ChatTemplate::kR1, ChatTemplate::kV31}) {
    const RenderedChat chat = RenderChat(which, Chat(messages));
    ASSERT_EQ(chat.answers.size(), 2U) << ChatTemplateName(which);
    const std::string space = which == ChatTemplate::kV2 ? " " : "";  // whose prompt ends in a colon
    EXPECT_EQ(chat.text.substr(chat.answers[0].begin, chat.answers[0].end - chat.answers[0].begin), space + "A<｜end▁of▁sentence｜>");
    EXPECT_EQ(chat.text.substr(chat.answers[1].begin), space + "<｜end▁of▁sentence｜>");
  }
  const RenderedChat thought = RenderChat(ChatTemplate::kV32, Chat(messages), {.thinking = true});
  ASSERT_EQ(thought.answers.size(), 2U);
  EXPECT_EQ(thought.text.substr(thought.answers[1].begin), "Q</think><｜end▁of▁sentence｜>");
}

TEST(ChatTemplate, ErrorsNameTheMessage) {
  try {
    Render(ChatTemplate::kV3, R"([{"role":"user","content":"U"},{"role":"user","content":7}])");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "message 1: no string \"content\"");
    EXPECT_EQ(e.code(), ErrorCode::kInput);
  }
}

// No input makes a template do anything but answer or throw Error.
TEST(ChatTemplate, OddValuesAreErrorsAndNothingElse) {
  const std::vector<std::string> odd = {"null",
                                        "true",
                                        "0",
                                        "-1.5",
                                        "\"\"",
                                        "\"x\"",
                                        "[]",
                                        "[null]",
                                        "{}",
                                        "[{}]",
                                        R"([{"function":{}}])",
                                        R"([{"function":{"name":"f","arguments":"[]"}}])",
                                        R"([{"type":"t","function":null}])",
                                        "[[[]]]"};
  const std::vector<std::string> roles = {"user", "assistant", "tool", "system", "developer", "other"};
  const std::vector<std::string> keys = {"content", "tool_calls", "tools", "reasoning_content", "response_format", "prefix", "role"};
  for (const ChatTemplate which :
       {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kV3March, ChatTemplate::kR1, ChatTemplate::kV31, ChatTemplate::kV32}) {
    for (const std::string& value : odd) {
      const OrderedJson parsed = Chat(value);
      for (const std::string& role : roles) {
        for (const std::string& key : keys) {
          OrderedJson message = {{"role", role}, {"content", "c"}};
          message[key] = parsed;
          const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", "u"}}, message, message});
          try {
            const RenderedChat chat = RenderChat(which, messages, {.add_generation_prompt = true, .thinking = true});
            for (const AnswerSpan& answer : chat.answers) EXPECT_LE(answer.end, chat.text.size());
          } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kInput);
          }
        }
      }
      EXPECT_THROW(RenderChat(which, OrderedJson::array({nullptr})), Error);
    }
    EXPECT_THROW(RenderChat(which, Chat("{}")), Error);
  }
}

// Templates that say what the published ones say, in another layout.
const char kV2Like[] =
    R"({{ bos_token }}{% for message in messages %}{% if message["role"] == "user" %}{{ "User: " + message["content"] + "\n\n" }}
  {%- else %}{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %})";
const char kR1Like[] = R"({%- set ns = namespace(is_first_sp = true) -%}{% if 'tool_calls' in message %}x{% endif %}
  {% set content = content.split('</think>') [-1] %}{% if add_generation_prompt -%} {{- '<｜Assistant｜><think>\n' -}} {% endif %})";
const char kV31Like[] = R"({% set ns = namespace(is_first_sp=true, is_last_user=false) %}{{'<｜Assistant｜></think>'}}
  {% if message['prefix'] is defined and message['prefix'] and thinking %}{% endif %}{% set content = content.split('</think>', 1)[1] %})";

TEST(RecogniseChatTemplate, ByWhatItSays) {
  EXPECT_EQ(RecogniseChatTemplate(kV2Like, "x"), ChatTemplate::kV2);
  EXPECT_EQ(RecogniseChatTemplate(kR1Like, "x"), ChatTemplate::kR1);
  EXPECT_EQ(RecogniseChatTemplate(kV31Like, "x"), ChatTemplate::kV31);
}

TEST(RecogniseChatTemplate, AnUnknownOneIsOneLineWithTheKnownNames) {
  for (const std::string& jinja :
       {std::string(), std::string("{{ messages }}"), std::string("<|im_start|>"), kV31Like + std::string("{{ tool | tojson }}")}) {
    try {
      RecogniseChatTemplate(jinja, "here");
      ADD_FAILURE() << jinja;
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(),
                   "here: this chat template is none that fathom knows; choose one with chat_template= (v2, v3, v3-0324, r1, v3.1, v3.2)");
    }
  }
}

TEST(CheckpointChatTemplate, IsLookedUpInTheFolder) {
  const TemporaryFolder folder;
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder.path() / name) << text; };
  EXPECT_THROW(CheckpointChatTemplate(folder.path()), Error);
  write("config.json", R"({"model_type":"deepseek_v32"})");
  write("tokenizer_config.json", "{}");
  EXPECT_EQ(CheckpointChatTemplate(folder.path()), ChatTemplate::kV32);
  write("tokenizer_config.json", OrderedJson{{"chat_template", kV31Like}}.dump());
  EXPECT_EQ(CheckpointChatTemplate(folder.path() / "tokenizer.json"), ChatTemplate::kV31);
  const OrderedJson named = {{{"name", "tool_use"}, {"template", "?"}}, {{"name", "default"}, {"template", kR1Like}}};
  write("tokenizer_config.json", OrderedJson{{"chat_template", named}}.dump());
  EXPECT_EQ(CheckpointChatTemplate(folder.path()), ChatTemplate::kR1);
  write("chat_template.jinja", kV2Like);
  EXPECT_EQ(CheckpointChatTemplate(folder.path()), ChatTemplate::kV2);
}

}  // namespace
}  // namespace fathom
