// The model that MaxText's flags describe, and how flags and a checkpoint's config.json get along.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/config/run_config.h"

namespace fathom {

// base_emb_dim, q_lora_rank (0: none), n_routing_groups (-1: one), use_indexer ... times global_parameter_scale. The family follows from
// use_indexer (V3.2) and routed_score_func (sigmoid: V3, softmax: V2). Throws Error(kUsage): sizes out of range, a combination that no
// DeepSeek model has.
ModelConfig ModelFromFlags(const RunConfig& config);
// The flags that it reads, beside model_name.
std::vector<std::string> ModelFlags();
// ModelFromFlags of these flags (which must live as long), for a checkpoint that holds no config.json; empty if neither a model nor its
// width is given.
std::function<ModelConfig()> DescribedModel(const RunConfig& config);

// A checkpoint's config.json decides on the model; a model_name given beside it is only checked: another family is Error(kUsage). What else
// was given and differs, of the model_name or by itself, is named in one warning. where names the config.json.
void CheckModelName(const RunConfig& config, const ModelConfig& model, const std::string& where);

// Throws Error(kUsage) for a size that was given (RunConfig::Given) and that this checkpoint's model has otherwise; what the file of a
// model_name sets is CheckModelName's.
void CheckGivenSizes(const RunConfig& config, const ModelConfig& model, const std::string& where);

// Of a model that is not trained: what was given (RunConfig::Given) and this checkpoint's model has otherwise is Error(kUsage), but for
// indexer_topk with override_model_config=true, as MaxText's check of V3.2 gives it: the model takes it.
void FollowGivenFlags(const RunConfig& config, ModelConfig& model, const std::string& where);

// Makes a V3 model one of V3.2: the family, and the indexer's sizes as indexer_n_heads, indexer_head_dim and indexer_topk give them.
void AddIndexer(const RunConfig& config, ModelConfig& model);

// Flags of training that this model can't follow: Error(kUsage). A balance bias without noaux_tc, an indexer loss without an indexer,
// a sequence beyond the model's context.
void CheckTrainingFlags(const RunConfig& config, const ModelConfig& model);

}  // namespace fathom
