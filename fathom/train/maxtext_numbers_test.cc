// What belongs to DeepSeek alone against numbers that MaxText 0.2.5 computed (tests/data/maxtext/README.md).
#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/base/json.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/testing/close.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

// Two rows of 24 tokens; the second has two documents and padding.
Batch ReadBatch(const Json& json) {
  Batch batch;
  batch.Clear(2, 24);
  const auto flat = [&](const char* name) {
    std::vector<int32_t> all;
    for (const Json& row : json.at(name)) all.insert(all.end(), row.begin(), row.end());
    return all;
  };
  batch.ids = flat("inputs");
  batch.targets = flat("targets");
  batch.positions = flat("inputs_position");
  batch.segments = {{0, 24}, {24, 35}, {35, 44}};
  const auto counted = flat("targets_segmentation");
  for (size_t t = 0; t < counted.size(); ++t) {
    batch.weights[t] = counted[t] != 0 ? 1.0f : 0.0f;
    batch.target_count += counted[t] != 0 ? 1 : 0;
  }
  return batch;
}

const std::filesystem::path kData = std::filesystem::path(FATHOM_TEST_DATA) / "maxtext";

struct Case {
  Case(const std::string& model, const std::string& name, std::vector<std::string> flags)
      : numbers(ReadJsonFile(kData / "numbers" / (name + ".json"))), batch(ReadBatch(numbers.at("batch"))) {
    if (std::ranges::none_of(flags, [](const std::string& f) { return f.starts_with("per_device_batch_size="); }))
      flags.push_back("per_device_batch_size=2");
    flags.insert(flags.end(), {"compat=maxtext", "dtype=float32", "max_target_length=24", "steps=1"});
    const RunConfig config = RunConfig::Resolve(flags);
    const TrainOptions options = ReadTrainOptions(config);
    LoadedModel loaded = LoadModel(config, options, kData / model);
    session = std::make_unique<TrainSession>(loaded.config, options, std::move(loaded.params));
  }
  const Json& Result(const std::string& name) const { return numbers.at("result").at(name); }
  double Number(const std::string& name) const { return Result(name).get<double>(); }

  Json numbers;
  Batch batch;
  std::unique_ptr<TrainSession> session;
};

TEST(MaxText, MtpLossAndGradients) {
  Case c("v3", "mtp_loss", {"mtp_num_layers=1", "mtp_loss_scaling_factor=0.3"});
  const StepReport report = c.session->Step(c.batch, 0);
  EXPECT_NEAR(report.mtp_loss, c.Number("mtp_loss"), 1e-5);
  EXPECT_NEAR(report.sums.mtp.loss, c.Number("mtp_losses.mtp_block.losses"), 1e-3);
  EXPECT_EQ(report.sums.mtp.weight, c.Number("mtp_losses.mtp_block.weights"));
  EXPECT_NEAR(report.loss, c.Number("loss"), 2e-5);
  EXPECT_NEAR(report.optimizer.raw_grad_norm, c.Number("raw_grad_norm"), 1e-4);
  const auto file = SafetensorsFile::Open(kData / "numbers" / "mtp_loss.safetensors");
  int64_t compared = 0;
  for (const NamedWeight& w : ListParams(c.session->grads())) {
    const TensorEntry* entry = file->Find("grad." + w.spec->name);
    if (entry == nullptr) continue;
    const Tensor want = file->Get(*entry);
    const auto n = static_cast<size_t>(want.NumElements());
    EXPECT_TRUE(RelativeL2(std::span(w.weight->value.data<float>(), n), ToDoubles(std::span(want.data<float>(), n)), 2e-5)) << w.spec->name;
    ++compared;
  }
  EXPECT_EQ(compared, 20);
}

TEST(MaxText, MtpAcceptanceInEvaluation) {
  Case c("v3-trained", "mtp_eval_acceptance", {"mtp_eval_target_module=1"});
  const LossSums sums = c.session->Evaluate(c.batch);
  EXPECT_NEAR(sums.main.loss, c.Number("xent_sum"), 1e-3);
  EXPECT_NEAR(100 * sums.mtp_accepted / sums.mtp_compared, c.Number("acceptance"), 1e-3);
}

// One step's losses per layer are those of `numbers`, and so are their sum and the gradient norm.
void CheckBalance(const std::string& model, const std::string& numbers, std::vector<std::string> flags) {
  flags.push_back("load_balance_loss_weight=0.01");
  const Case c(model, numbers, flags);
  const StepReport report = c.session->Step(c.batch, 0);
  const Json& layers = c.Result("moe_lb_losses.0");
  for (size_t i = 0; i < layers.size(); ++i) EXPECT_NEAR(0.01 / 2 * c.session->totals().balance[i + 1], layers[i].get<double>(), 1e-8);
  EXPECT_NEAR(report.balance_loss, c.Number("moe_lb_loss"), 1e-8);
  EXPECT_NEAR(report.loss, c.Number("loss"), 2e-5);
  EXPECT_NEAR(report.optimizer.raw_grad_norm, c.Number("raw_grad_norm"), 1e-4);
}

TEST(MaxText, BalanceLosses) {
  CheckBalance("v2-lite", "load_balance_v2", {});
  CheckBalance("v3", "load_balance_v3", {});
  CheckBalance("v3", "load_balance_v3_megatron", {"moe_use_megatron_seq_aux_loss=true"});
}

TEST(MaxText, RouterBiasMovesAfterTheStep) {
  const Case c("v3", "routed_bias_update", {"mtp_num_layers=1", "routed_bias_update_rate=0.001"});
  c.session->Step(c.batch, 0);
  int64_t compared = 0;
  for (const NamedWeight& w : ListParams(c.session->params())) {
    if (!w.spec->name.ends_with("e_score_correction_bias")) continue;
    const auto after = c.Result("after").at(w.spec->name).get<std::vector<float>>();
    EXPECT_TRUE(SameBits(std::span(w.weight->value.data<float>(), after.size()), after)) << w.spec->name;
    ++compared;
  }
  EXPECT_EQ(compared, 3);
}

// Losses and norms of five steps. Muon: matrices by it, the rest by AdamW with a look ahead.
TEST(MaxText, OptimizersTrain) {
  const auto check = [](const char* model, const char* name, const std::vector<std::string>& flags) {
    const Case c(model, "optimizers", flags);
    for (const Json& step : c.Result(name)) {
      const StepReport report = c.session->Step(c.batch, step["lr"].get<double>());
      const double norm = step["param_norm"].get<double>();
      EXPECT_NEAR(report.loss, step["loss"].get<double>(), 2e-4) << name;
      EXPECT_NEAR(report.optimizer.raw_grad_norm, step["raw_grad_norm"].get<double>(), 5e-3) << name;
      EXPECT_NEAR(report.optimizer.param_norm, norm, 1e-5 * norm) << name;
    }
  };
  check("v3", "adamw", {"mtp_num_layers=1"});
  check("v2-lite", "adamw_v2", {});
  check("v2-lite", "adamw_mask", {"adamw_mask=[norm, 'mlp.gate.weight']"});
  check("v2-lite", "adam_pax", {"opt_type=adam_pax"});
  check("v3", "sgd", {"mtp_num_layers=1", "opt_type=sgd"});
  check("v3", "muon", {"mtp_num_layers=1", "opt_type=muon"});
  check("v2-lite", "muon_v2", {"opt_type=muon", "muon_type=maxtext_muon"});
}

// Two micro-batches of a row each, of which one has fewer targets.
TEST(MaxText, GradientAccumulation) {
  const Case c("v2-lite", "grad_accumulation", {"per_device_batch_size=1", "opt_type=sgd", "load_balance_loss_weight=0.01"});
  for (const Json& step : c.Result("steps")) {
    const StepReport report = c.session->Step(c.batch, step["lr"].get<double>());
    const double norm = step["param_norm"].get<double>();
    EXPECT_NEAR(report.lm_loss, step["lm_loss"].get<double>(), 2e-5);
    EXPECT_NEAR(report.balance_loss, step["moe_lb_loss"].get<double>(), 1e-7);
    EXPECT_NEAR(report.optimizer.raw_grad_norm, step["raw_grad_norm"].get<double>(), 1e-4);
    EXPECT_NEAR(report.optimizer.param_norm, norm, 1e-6 * norm);
  }
}

TEST(MaxText, WaysToRunExperts) {
  for (const std::string model : {"v2-lite", "v3"}) {
    const auto check = [&](const char* kind, std::vector<std::string> flags) {
      const Case c(model, "capacity", std::move(flags));
      EXPECT_NEAR(c.session->Step(c.batch, 0).loss, c.Result(model + "." + kind).at("loss").get<double>(), 2e-5) << model << " " << kind;
    };
    check("dropless_ragged", {});
    check("dropless_dense", {"sparse_matmul=false"});
    check("capacity_1.0", {"sparse_matmul=false", "capacity_factor=1.0"});
    check("capacity_1.25", {"sparse_matmul=false", "capacity_factor=1.25"});
  }
}

TEST(MaxText, IndexerLosses) {
  for (const bool sparse : {false, true}) {
    const Case c("v32", sparse ? "indexer_loss_sparse" : "indexer_loss_dense",
                 {"indexer_loss_scaling_factor=0.01", sparse ? "indexer_sparse_training=true" : "indexer_sparse_training=false"});
    const StepReport report = c.session->Step(c.batch, 0);
    EXPECT_NEAR(report.indexer_loss, c.Number("indexer_loss"), 1e-7);
    const auto layers = c.Result("indexer_losses.decoder.moe_layers.self_attention.indexer_loss").get<std::vector<double>>();
    for (size_t i = 0; i < layers.size(); ++i) EXPECT_NEAR(0.01 / 48 * c.session->totals().indexer_kl[i + 1], layers[i], 1e-7);
    EXPECT_NEAR(report.loss, c.Number("loss"), 2e-5);
    EXPECT_NEAR(report.optimizer.raw_grad_norm, c.Number("raw_grad_norm"), 1e-4);
  }
}

}  // namespace
}  // namespace fathom
