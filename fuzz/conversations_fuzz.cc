// A file of conversations of any content, as JSON lines or as a JSON array (its first byte decides): either an Error of the right kind, or
// rows that are conversations in every template or are refused.
#include <cstdint>
#include <string>

#include "fathom/base/error.h"
#include "fathom/chat/conversation.h"
#include "fathom/data/row_reader.h"
#include "fuzz/memory_file.h"

namespace {

using namespace fathom;

constexpr ConversationForm kForms[] = {ConversationForm::kMessages, ConversationForm::kPromptCompletion, ConversationForm::kQuestionAnswer,
                                       ConversationForm::kShareGpt};
constexpr ChatTemplate kTemplates[] = {ChatTemplate::kV2, ChatTemplate::kV3,  ChatTemplate::kV3March,
                                       ChatTemplate::kR1, ChatTemplate::kV31, ChatTemplate::kV32};

template <class F>
void ExpectInputErrors(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    Require(e.code() == ErrorCode::kInput);
  }
}

void Render(const std::string& json, ConversationForm form, ChatTemplate which) {
  const OrderedJson messages = ConversationOf(ParseOrderedJson(json, "the row"), form, which);
  const RenderedChat chat = RenderChat(which, messages, {.thinking = ShowsReasoning(messages)});
  size_t done = 0;
  for (const AnswerSpan& answer : chat.answers) {
    Require(done <= answer.begin && answer.begin < answer.end && answer.end <= chat.text.size());
    done = answer.end;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const MemoryFile memory(data + 1, size - 1);
  const DataFile file{memory.path(), static_cast<int64_t>(size) - 1, data[0] % 2 == 0 ? FileKind::kJsonLines : FileKind::kJsonArray, false};
  ExpectInputErrors([&] {
    const auto rows = OpenRows(file, WholeFile(0, file), {});
    for (Row row; rows->Next(&row);) {
      Require(row.place >= 0 && row.place <= file.bytes);
      for (const ConversationForm form : kForms) {
        for (const ChatTemplate which : kTemplates) ExpectInputErrors([&] { Render(row.json, form, which); });
      }
    }
  });
  return 0;
}
