// What a parameter is for, and every fact that follows from that alone. Whoever has a question about a parameter (how is it stored, who
// trains it, where does MaxText keep it, may it take an adapter) asks this table; nobody looks at a name.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace fathom {

enum class ParamRole : uint8_t {
  kEmbedding,
  kFinalNorm,
  kHead,
  kInputNorm,
  kPostAttentionNorm,
  kQuery,      // V2-Lite: without a query latent
  kQueryDown,  // to the latent of queries, and from it
  kQueryNorm,
  kQueryUp,
  kKvDown,  // to the latent of keys and values and the shared rotary key, and from it
  kKvNorm,
  kKvUp,
  kOutput,
  kIndexerQuery,
  kIndexerKey,
  kIndexerKeyNorm,
  kIndexerKeyNormBias,
  kIndexerHeadWeights,
  kMlpGate,
  kMlpUp,
  kMlpDown,
  kRouter,
  kRouterBias,
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kMtpEmbedding,  // an MTP module's copies of embedding and head
  kMtpHead,
  kMtpEmbeddingNorm,
  kMtpHiddenNorm,
  kMtpProjection,
  kMtpFinalNorm,
};

// Where the tensor stands in the hub's layout.
enum class ParamPlace : uint8_t { kRoot, kLayer, kExpert, kMtp };

// How an FP8 and a BF16 checkpoint hold it.
enum class HubStorage : uint8_t {
  kFp8,    // a matrix of products that DeepSeek computes in FP8: F8_E4M3 with scales; BF16 in a BF16 checkpoint
  kPlain,  // BF16 in both
  kF32,    // F32 in both
};

enum class FreshValues : uint8_t { kFanIn, kUnitNormal, kOnes, kZeros };

// How the elements of a hub tensor lie in MaxText's array.
enum class MaxTextForm : uint8_t { kNone, kEmbedding, kVector, kRouterBias, kMatrix, kHeadsOut, kHeadsIn, kIndexerHeadsOut };

// Does it take a low-rank adapter: never; by default, as MaxText's entry for DeepSeek; only where a pattern names it.
enum class AdapterUse : uint8_t { kNever, kOnRequest, kByDefault };

struct RoleFacts {
  ParamRole role;
  ParamPlace place;
  std::string_view hub;      // below "model.layers.N." and "mlp.experts.E."; a root's whole name
  std::string_view maxtext;  // likewise, below MaxText's layer or MTP module; empty: no place of its own
  MaxTextForm form;
  HubStorage storage;
  FreshValues fresh;
  bool rounded;  // a bf16 run's products read a BF16 copy: matrices, but for the router, which computes in F32, and embeddings, looked up
  AdapterUse adapter;
};

const RoleFacts& FactsOf(ParamRole role);

// The role of the tensor with this hub name, in any layer; nothing: no parameter of the family has such a name.
std::optional<ParamRole> RoleOf(std::string_view hub_name);

// Set by counting tokens (the auxiliary-loss-free balance), not by a gradient.
constexpr bool LearnsByCounting(ParamRole role) { return role == ParamRole::kRouterBias; }
constexpr bool IsIndexer(ParamRole role) { return role >= ParamRole::kIndexerQuery && role <= ParamRole::kIndexerHeadWeights; }
constexpr bool IsExpert(ParamRole role) { return role >= ParamRole::kExpertGate && role <= ParamRole::kExpertDown; }

// How ranks that share a layer's heads and widths cut its matrices: heads and widths are rows of what makes them, columns of what takes
// them.
enum class TensorCut : uint8_t { kNone, kRows, kColumns };
constexpr TensorCut CutOf(ParamRole role) {
  switch (role) {
    case ParamRole::kQuery:
    case ParamRole::kQueryUp:
    case ParamRole::kKvUp:
    case ParamRole::kMlpGate:
    case ParamRole::kMlpUp:
    case ParamRole::kExpertGate:
    case ParamRole::kExpertUp:
    case ParamRole::kSharedGate:
    case ParamRole::kSharedUp:
      return TensorCut::kRows;
    case ParamRole::kOutput:
    case ParamRole::kMlpDown:
    case ParamRole::kExpertDown:
    case ParamRole::kSharedDown:
      return TensorCut::kColumns;
    default:
      return TensorCut::kNone;
  }
}
// The main model's parameter that an MTP module's copy equals on the hub; nothing: it is no copy.
constexpr std::optional<ParamRole> CopyOf(ParamRole role) {
  if (role == ParamRole::kMtpEmbedding) return ParamRole::kEmbedding;
  if (role == ParamRole::kMtpHead) return ParamRole::kHead;
  return std::nullopt;
}
// The root's parameter that MaxText's model takes where this one is not there: an MTP module need not have a final norm of its own.
constexpr std::optional<ParamRole> StandIn(ParamRole role) {
  return role == ParamRole::kMtpFinalNorm ? std::optional(ParamRole::kFinalNorm) : std::nullopt;
}

}  // namespace fathom
