// Multi-token prediction against numbers that MaxText 0.2.5 computed (tests/data/maxtext/README.md).
#include <gtest/gtest.h>

#include "fathom/base/json.h"
#include "fathom/checkpoint/safetensors.h"
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

struct Case {
  explicit Case(const std::string& name, std::vector<std::string> flags)
      : dir(std::filesystem::path(FATHOM_TEST_DATA) / "maxtext" / name),
        numbers(ReadJsonFile(dir / "numbers.json")),
        batch(ReadBatch(numbers.at("batch"))) {
    flags.insert(flags.end(), {"compat=maxtext", "dtype=float32", "per_device_batch_size=2", "max_target_length=24", "steps=1"});
    const RunConfig config = RunConfig::Resolve(flags);
    const TrainOptions options = ReadTrainOptions(config);
    LoadedModel model = LoadModel(config, options, dir);
    session = std::make_unique<TrainSession>(model.config, options, std::move(model.params));
  }
  double Number(const char* name) const { return numbers.at("result").at(name).get<double>(); }

  std::filesystem::path dir;
  Json numbers;
  Batch batch;
  std::unique_ptr<TrainSession> session;
};

TEST(MtpMaxText, LossAndGradients) {
  Case c("mtp_loss", {"mtp_num_layers=1", "mtp_loss_scaling_factor=0.3"});
  const StepReport report = c.session->Step(c.batch, 0);
  EXPECT_NEAR(report.mtp_loss, c.Number("mtp_loss"), 1e-5);
  EXPECT_NEAR(report.sums.mtp.loss, c.Number("mtp_losses.mtp_block.losses"), 1e-3);
  EXPECT_EQ(report.sums.mtp.weight, c.Number("mtp_losses.mtp_block.weights"));
  EXPECT_NEAR(report.loss, c.Number("loss"), 2e-5);
  EXPECT_NEAR(report.optimizer.raw_grad_norm, c.Number("raw_grad_norm"), 1e-4);
  const auto file = SafetensorsFile::Open(c.dir / "gradients.safetensors");
  int64_t compared = 0;
  for (const NamedWeight& w : ListParams(c.session->grads())) {
    const TensorEntry* entry = file->Find("grad." + w.name);
    if (entry == nullptr) continue;
    const Tensor want = file->Get(*entry);
    const auto n = static_cast<size_t>(want.NumElements());
    EXPECT_TRUE(RelativeL2(std::span(w.weight->value.data<float>(), n), ToDoubles(std::span(want.data<float>(), n)), 2e-5)) << w.name;
    ++compared;
  }
  EXPECT_EQ(compared, 20);
}

TEST(MtpMaxText, AcceptanceInEvaluation) {
  Case c("mtp_acceptance", {"mtp_eval_target_module=1"});
  const LossSums sums = c.session->Evaluate(c.batch);
  EXPECT_NEAR(sums.main.loss, c.Number("xent_sum"), 1e-3);
  EXPECT_NEAR(100 * sums.mtp_accepted / sums.mtp_compared, c.Number("acceptance"), 1e-3);
}

}  // namespace
}  // namespace fathom
