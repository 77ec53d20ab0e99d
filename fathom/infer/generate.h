// From prompts to text, token by token, several prompts at a time.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "fathom/infer/answer.h"
#include "fathom/infer/engine.h"

namespace fathom {

struct Request {
  std::vector<int32_t> prompt;
  int64_t max_new_tokens;
};

// What becomes of the requests, by their number. text gets pieces as they come; done is called once for each, in the order in which they
// end; suffices, if there is one, is asked after every token whether the answer may end here.
struct GenerateEvents {
  std::function<void(size_t, std::string_view)> text;
  std::function<void(size_t, GenerateResult)> done;
  std::function<bool(size_t)> suffices = {};
};

// Up to `batch` prompts at a time, which share passes; a new one joins when another ends. What its prompt has in common with one that is
// there already is not computed again, as far as the bits stay the same. An answer, sampled or not, is a function of the
// model, its prompt and the options (but for how its prompt is computed, see Engine). The engine holds `batch` sequences. tokenizer may be
// null (ids only). options.max_new_tokens is not used. Throws Error(kUsage): an empty prompt, a prompt that leaves no room.
void GenerateAll(Engine& engine, const Tokenizer* tokenizer, std::span<const Request> requests, const GenerateOptions& options,
                 int64_t batch, const GenerateEvents& events);

// One prompt.
GenerateResult Generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text);

}  // namespace fathom
