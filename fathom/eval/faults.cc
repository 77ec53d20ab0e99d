#include "fathom/eval/faults.h"

#include <limits>

namespace fathom {
namespace {

using Config = const ModelConfig&;
using Parts = ModelParts&;

bool Always(Config) { return true; }
bool HasExperts(Config c) { return c.n_routed_experts > 0; }
bool HasSharedExperts(Config c) { return HasExperts(c) && c.n_shared_experts > 0; }
bool IsScaled(Config c) { return HasExperts(c) && c.routed_scaling_factor != 1; }
bool HasYarn(Config c) { return c.rope_scaling.has_value(); }
bool HasMscale(Config c) { return HasYarn(c) && c.rope_scaling->mscale_all_dim != 0; }
bool HasBias(Config c) { return HasExperts(c) && c.topk_method == TopkMethod::kNoauxTc; }
bool HasGroups(Config c) { return HasExperts(c) && c.topk_method != TopkMethod::kGreedy && c.topk_group < c.n_group; }
bool HasBiasAndGroups(Config c) { return HasBias(c) && HasGroups(c); }
bool HasIndexer(Config c) { return c.has_indexer(); }
bool HasIndexerOfSeveral(Config c) { return c.index_topk > 1; }

void LoseSharedExperts(Parts m) {
  for (BlockParams& layer : m.params.layers) layer.moe.shared_experts = {};
}
void LoseBiases(Parts m) {
  for (BlockParams& layer : m.params.layers) layer.moe.e_score_correction_bias = {};
}

constexpr KnownFault kFaults[] = {
    {"rope_layout", "attention's rotary pairs are (x[i], x[i + d/2]), the model's are (x[2i], x[2i+1])", Always,
     [](Parts m) { m.layers.faults.rope_halves = true; }},
    {"mscale", "the softmax scale lacks YaRN's mscale^2", HasMscale, [](Parts m) { m.layers.faults.plain_softmax_scale = true; }},
    {"yarn", "the rotary frequencies are plain, without YaRN's interpolation", HasYarn,
     [](Parts m) { m.layers.faults.plain_frequencies = true; }},
    {"yarn", "YaRN is left out: the rotary frequencies are plain, and the softmax scale lacks mscale^2", HasMscale,
     [](Parts m) { m.layers.faults.plain_frequencies = m.layers.faults.plain_softmax_scale = true; }},
    {"norm_epsilon", "the norms' epsilon is 1e-5 where the model has 1e-6, or the reverse", Always,
     [](Parts m) { m.config.rms_norm_eps = m.config.rms_norm_eps < 5e-6 ? 1e-5 : 1e-6; }},
    {"shared_expert", "the shared expert is lost", HasSharedExperts, LoseSharedExperts},
    {"routed_scaling_factor", "the experts' weights are not scaled by routed_scaling_factor", IsScaled,
     [](Parts m) { m.config.routed_scaling_factor = 1; }},
    {"norm_topk_prob", "the experts' weights are normalised where the model's are not, or the reverse", HasExperts,
     [](Parts m) { m.config.norm_topk_prob = !m.config.norm_topk_prob; }},
    {"groups_ignored", "experts are chosen among all groups, without n_group and topk_group", HasGroups,
     [](Parts m) { m.config.n_group = m.config.topk_group = 1; }},
    {"router_bias_ignored", "experts are chosen without e_score_correction_bias", HasBias, LoseBiases},
    {"router_bias_in_weights", "e_score_correction_bias counts in the experts' weights, not in their choice alone", HasBias,
     [](Parts m) { m.layers.faults.bias_in_weights = true; }},
    {"group_mask_zero", "experts of groups that are left out compete with 0 where the model has -infinity", HasBiasAndGroups,
     [](Parts m) { m.layers.faults.group_mask_zero = true; }},
    {"index_topk", "the indexer chooses one key less than index_topk", HasIndexerOfSeveral, [](Parts m) { --m.config.index_topk; }},
    {"index_topk", "the indexer chooses one key more than index_topk", HasIndexer, [](Parts m) { ++m.config.index_topk; }},
    {"indexer_ignored", "attention sees every key, whatever the indexer would choose", HasIndexer,
     [](Parts m) { m.config.index_topk = std::numeric_limits<int32_t>::max(); }},
    {"indexer_rope_layout", "the indexer's rotary pairs are attention's (x[2i], x[2i+1]), the model's are (x[i], x[i + d/2])", HasIndexer,
     [](Parts m) { m.layers.faults.indexer_interleaved = true; }},
};

}  // namespace

std::span<const KnownFault> KnownFaults() { return kFaults; }

}  // namespace fathom
