#include "apps/chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/signal_stack.h"
#include "fathom/chat/chat_tokens.h"
#include "fathom/chat/completion.h"

namespace fathom {
namespace {

constexpr const char* kHelp =
    "  /reset          forget the conversation\n"
    "  /system TEXT    begin anew with this system message (without TEXT: with none)\n"
    "  /quit           leave; so does Ctrl-D\n"
    "  a line that ends in \\ goes on in the next one; \"\"\" begins and ends a message of several lines\n"
    "  Ctrl-C stops an answer\n";

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t g_interrupted = 0;

// Ctrl-C while it lives is a flag.
class Interrupts {
 public:
  Interrupts() {
    UseSignalStack();
    struct sigaction action = {};
    action.sa_handler = [](int) { g_interrupted = 1; };
    action.sa_flags = SA_ONSTACK;  // no restart: a waiting read returns
    sigaction(SIGINT, &action, &before_);
  }
  ~Interrupts() { sigaction(SIGINT, &before_, nullptr); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  static bool Take() {
    const bool taken = g_interrupted != 0;
    g_interrupted = 0;
    return taken;
  }

 private:
  struct sigaction before_;
};

// Lines of standard input; Ctrl-C drops what was begun.
class Lines {
 public:
  // False at the end.
  bool Next(std::string* line) {
    size_t end;
    while ((end = buffer_.find('\n')) == std::string::npos) {
      char bytes[4096];
      const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (n < 0 && errno == EINTR) {
        Interrupts::Take();
        buffer_.clear();
        line->clear();
        return true;
      }
      if (n <= 0) break;
      buffer_.append(bytes, static_cast<size_t>(n));
    }
    if (buffer_.empty()) return false;
    const size_t size = std::min(end, buffer_.size());
    *line = buffer_.substr(0, size);
    buffer_.erase(0, size + 1);
    if (line->ends_with('\r')) line->pop_back();
    return true;
  }

 private:
  std::string buffer_;
};

void Print(std::string_view text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

class Conversation {
 public:
  Conversation(Engine& engine, const Tokenizer& tokenizer, const ChatForm& form, const GenerateOptions& options)
      : engine_(engine), tokenizer_(tokenizer), form_(form), options_(options), shows_prompt_(::isatty(STDIN_FILENO) == 1) {}

  void Run() {
    if (shows_prompt_) Print("/quit leaves, /help says more\n");
    for (std::string said; Read(&said);) {
      if (said.empty()) continue;
      if (said == "/quit" || said == "/exit") return;
      if (said.starts_with('/')) {
        Obey(said);
      } else {
        Reply(said);
      }
    }
  }

 private:
  void Ask(const char* prompt) const {
    if (shows_prompt_) Print(prompt);
  }

  // A message of one or several lines.
  bool Read(std::string* said) {
    Ask("\n> ");
    if (!lines_.Next(said)) return false;
    if (said->starts_with("\"\"\"")) {
      ReadBlock(said);
      return true;
    }
    for (std::string more; said->ends_with('\\'); *said += more) {
      said->back() = '\n';
      Ask("... ");
      if (!lines_.Next(&more)) break;
    }
    return true;
  }

  // Up to a line that ends as it began.
  void ReadBlock(std::string* said) {
    said->erase(0, 3);
    for (std::string more; !said->ends_with("\"\"\""); *said += "\n" + more) {
      Ask("... ");
      if (!lines_.Next(&more)) return;
    }
    said->resize(said->size() - 3);
  }

  void Obey(const std::string& command) {
    if (command == "/reset") {
      messages_ = system_ ? OrderedJson::array({*system_}) : OrderedJson::array();
    } else if (command == "/system" || command.starts_with("/system ")) {
      const std::string text = command.substr(std::min<size_t>(command.size(), 8));
      system_ = text.empty() ? std::nullopt : std::optional<OrderedJson>({{"role", "system"}, {"content", text}});
      messages_ = system_ ? OrderedJson::array({*system_}) : OrderedJson::array();
    } else {
      Print(kHelp);
    }
  }

  // What can't be answered is said, and forgotten.
  void Reply(const std::string& said) {
    messages_.push_back({{"role", "user"}, {"content", said}});
    try {
      const std::vector<int32_t> prompt = ChatPrompt(form_, tokenizer_, messages_);
      Remember(Answer(prompt));
    } catch (const Error& e) {
      Print(fmt::format("[{}]\n", e.what()));
      messages_.erase(messages_.size() - 1);
    }
  }

  std::string Answer(const std::vector<int32_t>& prompt) {
    const int64_t room = engine_.model().capacity() - std::ssize(prompt);
    if (room < 1) {
      Throw(ErrorCode::kUsage, "the conversation has {} tokens, max_target_length={} is its limit: /reset begins anew", prompt.size(),
            engine_.model().capacity());
    }
    GenerateOptions options = options_;
    options.max_new_tokens = options.max_new_tokens < 0 ? room : std::min(room, options.max_new_tokens);
    std::string text;
    Interrupts::Take();
    try {
      Generate(engine_, &tokenizer_, prompt, options, [&](std::string_view piece) {
        Print(piece);
        text += piece;
      });
    } catch (const Stopped&) {
      if (text.empty()) Throw(ErrorCode::kFailed, "stopped before a word was said: the question is forgotten");
      Print(" [stopped]");
    }
    Print("\n");
    return text;
  }

  // As the template keeps it: without what it adds itself, apart from its reasoning, where the text has that form.
  void Remember(const std::string& text) {
    try {
      if (form_.which == ChatTemplate::kV32 || form_.which == ChatTemplate::kV2) {
        messages_.push_back(CompletionMessage(ParseCompletion(form_.which, text + std::string(kEosText), form_.thinking)));
        return;
      }
    } catch (const Error&) {
      // cut off, or of another form: as it stands
    }
    messages_.push_back({{"role", "assistant"}, {"content", text}});
  }

  Engine& engine_;
  const Tokenizer& tokenizer_;
  ChatForm form_;
  GenerateOptions options_;
  bool shows_prompt_;
  Lines lines_;
  std::optional<OrderedJson> system_;
  OrderedJson messages_ = OrderedJson::array();
};

}  // namespace

ChatForm ReadChatForm(const RunConfig& config, const std::filesystem::path& tokenizer_dir) {
  return {ChooseChatTemplate(config.String("chat_template"), config.String("chat_template_path"), tokenizer_dir), config.Bool("thinking")};
}

std::vector<int32_t> ChatPrompt(const ChatForm& form, const Tokenizer& tokenizer, const OrderedJson& messages) {
  const ChatOptions options{.add_generation_prompt = true, .thinking = form.thinking};
  return EncodeChat(tokenizer, RenderChat(form.which, messages, options)).ids;
}

OrderedJson ReadMessages(const std::filesystem::path& file) {
  OrderedJson root = ParseOrderedJson(ReadTextFile(file), file.string());
  if (root.is_object() && root.contains("messages")) root = OrderedJson(root["messages"]);
  if (!root.is_array() || root.empty())
    Throw(ErrorCode::kInput, "{}: no conversation: a list of messages, or an object with \"messages\", is read", file.string());
  return root;
}

int Converse(Engine& engine, const Tokenizer& tokenizer, const ChatForm& form, const GenerateOptions& options) {
  const Interrupts interrupts;
  engine.StopWhen(Interrupts::Take);  // while the prompt is read, too
  Conversation(engine, tokenizer, form, options).Run();
  return 0;
}

}  // namespace fathom
