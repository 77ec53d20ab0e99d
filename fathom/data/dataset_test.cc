#include "fathom/data/dataset.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

Tokenizer TestTokenizer() { return Tokenizer::Load(std::filesystem::path(FATHOM_TEST_DATA) / "tokenizer/deepseek"); }

class Data {
 public:
  Data() {
    std::string text;
    for (int i = 0; i < 9000; ++i) text += "This is line " + std::to_string(i) + " of a text to learn from.\n";
    WriteFileAtomically(folder_.path() / "train.txt", text);
    WriteFileAtomically(folder_.path() / "eval.jsonl", "{\"body\": \"Another text.\"}\n");
  }
  RunConfig Config(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"dataset_path=" + (folder_.path() / "train.txt").string(), "per_device_batch_size=2", "max_target_length=32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunConfig::Resolve(arguments);
  }
  std::string eval_path() const { return (folder_.path() / "eval.jsonl").string(); }

 private:
  TemporaryFolder folder_;
};

int64_t TextBytes(BatchSource& source) {
  Batch batch;
  int64_t bytes = 0;
  while (source.Next(&batch)) bytes += batch.text_bytes;
  return bytes;
}

TEST(Dataset, RowsCoverAllMicroBatches) {
  const Data data;
  const Tokenizer tokenizer = TestTokenizer();
  Batch batch;
  ASSERT_TRUE(MakeTrainSource(data.Config({"gradient_accumulation_steps=3"}), &tokenizer, 1 << 20)->Next(&batch));
  EXPECT_EQ(batch.rows, 6);
  EXPECT_EQ(batch.length, 32);
  EXPECT_EQ(batch.ids.size(), 192u);
  ASSERT_TRUE(MakeTrainSource(data.Config({"dataset_type=synthetic"}), nullptr, 100)->Next(&batch));
  EXPECT_EQ(batch.rows, 2);
  ASSERT_TRUE(MakeEvalSource(data.Config({"eval_per_device_batch_size=5", "eval_fraction=0.5"}), &tokenizer, 1 << 20)->Next(&batch));
  EXPECT_EQ(batch.rows, 5);
}

TEST(Dataset, HeldOutPartAndTrainingPartMakeTheWhole) {
  const Data data;
  const Tokenizer tokenizer = TestTokenizer();
  const auto whole = std::filesystem::file_size(data.Config({}).String("dataset_path"));
  EXPECT_EQ(TextBytes(*MakeTrainSource(data.Config({}), &tokenizer, 1 << 20)), static_cast<int64_t>(whole));
  const RunConfig config = data.Config({"eval_interval=10", "eval_fraction=0.4"});
  const int64_t train = TextBytes(*MakeTrainSource(config, &tokenizer, 1 << 20)), eval = TextBytes(*MakeEvalSource(config, &tokenizer, 1 << 20));
  EXPECT_EQ(train + eval, static_cast<int64_t>(whole));
  EXPECT_GT(eval, 0);
  EXPECT_GT(train, 0);
}

TEST(Dataset, EvalFilesOfTheirOwn) {
  const Data data;
  const Tokenizer tokenizer = TestTokenizer();
  const RunConfig config = data.Config({"eval_interval=10", "eval_dataset_path=" + data.eval_path(), "eval_data_columns=[body]"});
  EXPECT_EQ(TextBytes(*MakeEvalSource(config, &tokenizer, 1 << 20)), 13);
  EXPECT_EQ(TextBytes(*MakeTrainSource(config, &tokenizer, 1 << 20)), static_cast<int64_t>(std::filesystem::file_size(config.String("dataset_path"))));
}

TEST(Dataset, TellsWhatIsWrong) {
  const Data data;
  const Tokenizer tokenizer = TestTokenizer();
  EXPECT_THROW(MakeTrainSource(data.Config({}), &tokenizer, 100), Error);
  EXPECT_THROW(MakeTrainSource(data.Config({"per_device_batch_size=0.5"}), &tokenizer, 1 << 20), Error);
  EXPECT_THROW(MakeTrainSource(data.Config({"eval_interval=1", "eval_fraction=1"}), &tokenizer, 1 << 20), Error);
  EXPECT_THROW(MakeEvalSource(data.Config({"dataset_type=synthetic"}), nullptr, 100), Error);
  EXPECT_THROW(MakeTrainSource(data.Config({"dataset_path="}), &tokenizer, 1 << 20), Error);
}

}  // namespace
}  // namespace fathom
