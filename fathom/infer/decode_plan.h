// What decoding takes, reads and sends, from sizes alone: nothing is allocated or opened.
#pragma once

#include <vector>

#include "fathom/model/params.h"
#include "fathom/model/sharding.h"
#include "fathom/parallel/axis_traffic.h"

namespace fathom {

// What is decoded: so many sequences at a time, each a prompt and an answer.
struct DecodeShape {
  int64_t sequences = 1;
  int64_t prompt = 1;    // tokens
  int64_t capacity = 1;  // prompt and answer together
  int64_t drafts = 0;    // of each sequence's next tokens in a step, by the first MTP module
};

struct PassCost {
  double flops = 0;          // of this rank
  int64_t weights = 0;       // bytes of them that it reads: of experts those chosen, if they are chosen evenly
  AxisTraffic traffic = {};  // that it sends
};

// Of one rank.
struct DecodePlan {
  // Memory. Weights are read where they lie, as they are stored: its parts, and the pages that have any of them which passes touch. Modules
  // that nobody drafts with are never touched, of the embedding the tokens' rows, of the experts those that tokens choose.
  int64_t weight_bytes = 0, page_bytes = 0;
  int64_t cache_bytes = 0;    // of all sequences
  int64_t scratch_bytes = 0;  // at most, for a chunk of the prompt; logits and what sums over ranks keep included
  int64_t TotalBytes() const { return page_bytes + cache_bytes + scratch_bytes; }

  // What passes read of weights but for the embedding and the MTP modules: all routed experts, and the rest.
  int64_t expert_bytes = 0, always_bytes = 0;
  int64_t cache_per_step = 0;  // read of the cache at the end of full sequences

  PassCost prompts, step;  // a step: the next token of every sequence
  PassCost drafted_step;   // with drafts, if all of them are accepted
};

// params: mapped by MapParams or MapHubParams, their values are not looked at. On a planned mesh what is sent is counted, too. compute:
// dtype=.
DecodePlan PlanDecode(const Sharding& sharding, const DecoderParams& params, DType compute, const DecodeShape& shape);

// Cache and scratch of one sequence of so many tokens on these parameters, whose values are not looked at.
int64_t PlanSequence(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity);

// So many sequences, each with its last `tokens` tokens of `depth`.
struct PassShape {
  int64_t sequences, tokens, depth;
};
// Runs the pass over all layers and the head, under a PlanScope of the caller's: returns the bytes of scratch, and an open TraceScope has
// its kernels. config: as this rank's layers see it.
int64_t PlanPass(const ModelConfig& config, const DecoderParams& params, DType compute, const PassShape& shape,
                 const LayerGroups& groups = OneRank());

}  // namespace fathom
