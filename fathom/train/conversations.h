// Conversations as training reads them: which files, which template, which tokens are learned.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/chat/conversation.h"
#include "fathom/data/text.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {

struct ConversationConfig {
  ConversationForm form = ConversationForm::kMessages;
  ChatTemplate which = ChatTemplate::kV3;
  bool completion_only = true;  // only answers and their end-of-sentence are targets; otherwise every token but BOS
  bool rounds_alone = false;    // each round is templated alone, as MaxText does
  bool truncate = true;         // what is longer than a sequence is cut; otherwise left out
  int64_t length = 0;           // of a sequence
};

// What decides a conversation's tokens, as a word for TextConfig::settings.
std::string DescribeSettings(const ConversationConfig& config);

// The columns of a row that are read.
std::vector<std::string> RowColumns(const std::vector<std::string>& form_columns);

// From a document that is a row.
SampleFunction ConversationSampler(const ConversationConfig& config, std::shared_ptr<const Tokenizer> tokenizer);

// Renders the first rows of every file, so that what can be wrong is found before the first step. Throws Error(kInput) naming file and row,
// for bad rows only unless skip_bad.
void CheckFirstRows(const ConversationConfig& config, const StreamConfig& stream, bool skip_bad);

}  // namespace fathom
