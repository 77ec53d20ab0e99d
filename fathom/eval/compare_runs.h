// Where two models of one shape part on a prompt: layer by layer, side by side.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/checkpoint/hub/checkpoint.h"

namespace fathom {

struct ScoredChoice {
  int32_t id;   // an expert, a group of experts, the position of a key
  float score;  // what it was chosen by
};

struct RunDifferences {
  struct Place {
    int64_t layer, token;  // from 0
  };
  struct Choice {
    int64_t layer, token;
    std::string_view kind;           // "indexer", "group", "router"
    std::vector<ScoredChoice> a, b;  // what each side chose there; experts by falling score, the others by rising id
  };
  std::optional<Place> first;    // the first layer whose output differs by more than kSameOutput of its norm, and the first token there
  std::optional<Choice> choice;  // by layer, the indexer's before the router's
};
inline constexpr double kSameOutput = 1e-5;

// Throws Error(kInput) for an id outside the vocabulary.
void CheckTokens(const Checkpoint& checkpoint, std::span<const int32_t> ids);

// Runs both on the tokens. In f32, `first` of small models is found in double, where no rounding blurs it. Layers below `from` are the same
// on both sides, and are run on one; memory holds one layer's activations of each side, and weights are let go of layer by layer.
// progress(layers done) is called after each layer. Throws Error(kInput) as CheckTokens.
RunDifferences CompareRuns(const Checkpoint& a, const Checkpoint& b, DType compute, std::span<const int32_t> ids, int64_t from,
                           FunctionRef<void(int64_t)> progress);

}  // namespace fathom
