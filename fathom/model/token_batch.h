// What one step reads, and what its loss is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "fathom/kernels/head/cross_entropy.h"
#include "fathom/kernels/moe/balance.h"
#include "fathom/layers/context.h"

namespace fathom {

// Sequences of one step, one after the other.
struct TokenBatch {
  std::span<const int32_t> ids;      // [T]
  std::span<const int32_t> targets;  // [T]
  std::span<const float> weights;    // [T] of the targets; 0: not counted
  TokenLayout layout;
  const TokenBatch* whole = nullptr;  // where ranks share the sequences: all their tokens, of which these are this rank's (ContextRows)
};

// The hidden state that an MTP module is fed: that of the model below it (the main model, or the module before) after or before its own
// final norm.
enum class MtpInput { kAfterNorm, kBeforeNorm };

// "after_norm" or "before_norm", as the flag allows.
inline MtpInput ParseMtpInput(const std::string& name) { return name == "before_norm" ? MtpInput::kBeforeNorm : MtpInput::kAfterNorm; }

struct MtpOptions {
  int64_t modules = 0;  // how many of the model's modules take part; 0: none
  MtpInput input = MtpInput::kAfterNorm;
  float scale = 1;          // factor on their gradient
  int64_t eval_module = 0;  // Decoder::Loss compares this module's predictions with the main model's; from 1, 0: none
};

// How a step trains the indexers of V3.2 (report, continued pre-training). Their gradients are those of factor times the sum of the
// layers' losses.
struct IndexerTraining {
  float factor = 0;              // 0: they are not trained
  bool sparse = false;           // KL over the chosen keys; false: over all visible ones
  bool dense_attention = false;  // the main attention sees every key
};

// A loss that keeps experts equally busy (kernels/moe/balance.h); its gradient is that of factor times the sum over sequences and layers.
struct BalanceTraining {
  float factor = 0;  // 0: none
  BalanceForm form = BalanceForm::kNormalizedScores;
  bool highest_scores = false;  // count each token's K highest scores, whatever groups and bias made of them, instead of what ran
  bool padding = false;         // tokens of padding count, here and in the experts' counts (MaxText)
};

// What a step learns about every layer (main ones, then MTP modules); added to (or raised, where it is the largest), each may be empty.
struct LayerTotals {
  std::span<double> indexer_kl;      // [layers] KL of the indexer, summed over tokens
  std::span<double> balance;         // [layers] balance loss without its factor, summed over sequences
  std::span<int64_t> expert_counts;  // [layers*E] tokens that chose each expert
  std::span<int64_t> dropped;        // [layers] assignments beyond the capacity; as long as expert_counts is there
  std::span<float> max_logits;       // [layers*H] the largest attention score of each head; where LayerOptions ask for it
};

struct LossOptions {
  float z_loss = 0;
  float scale = 1;      // factor on the gradient of the cross entropy
  bool lm_loss = true;  // false: no head, no loss of the language model; the indexers alone are trained
  IndexerTraining indexer;
  BalanceTraining balance;
  MtpOptions mtp;
  LayerTotals totals;
};

struct LossSums {
  CrossEntropySums main;
  CrossEntropySums mtp;     // of all modules together
  double mtp_accepted = 0;  // of eval_module: weight of its predictions that the main model makes too, one pass later,
  double mtp_compared = 0;  // and of all that were compared

  LossSums& operator+=(const LossSums& other) {
    main += other.main;
    mtp += other.mtp;
    mtp_accepted += other.mtp_accepted;
    mtp_compared += other.mtp_compared;
    return *this;
  }
};

}  // namespace fathom
