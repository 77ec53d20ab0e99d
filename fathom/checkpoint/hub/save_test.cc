#include "fathom/checkpoint/hub/save.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

std::vector<NamedTensor> Views(const std::vector<TestTensor>& tensors) {
  std::vector<NamedTensor> views;
  for (const TestTensor& t : tensors) views.push_back({t.name, t.tensor});
  return views;
}

void ExpectSame(const TensorFolder& folder, const std::vector<TestTensor>& tensors) {
  ASSERT_EQ(folder.names().size(), tensors.size());
  for (const TestTensor& t : tensors) {
    const Tensor got = folder.Get(t.name);
    ASSERT_EQ(got.shape(), t.tensor.shape()) << t.name;
    ASSERT_EQ(got.dtype(), t.tensor.dtype()) << t.name;
    EXPECT_EQ(std::memcmp(got.view().raw(), t.tensor.view().raw(), static_cast<size_t>(got.NumBytes())), 0) << t.name;
  }
}

class SaveTest : public testing::TestWithParam<std::string> {
 protected:
  TemporaryFolder folder_;
  const std::filesystem::path dir_ = folder_.path() / "saved";
};

TEST_P(SaveTest, RoundTrip) {
  for (const Json& config : {TinyConfig(GetParam()), WithFp8(TinyConfig(GetParam()))}) {
    const auto tensors = TinyTensors(config);
    for (const int64_t max_shard_size : {int64_t{1} << 40, int64_t{20000}}) {
      SaveCheckpoint(dir_, config, Views(tensors), {.max_shard_size = max_shard_size, .companions = {}, .overwrite = true});
      const auto checkpoint = Checkpoint::Open(dir_);
      ValidateAgainstConfig(checkpoint);
      ExpectSame(checkpoint, tensors);
      EXPECT_EQ(checkpoint.config().raw, config);
      EXPECT_EQ(checkpoint.files().size() > 1, max_shard_size == 20000);
      for (const auto& file : checkpoint.files()) EXPECT_LE(static_cast<int64_t>(file->file().bytes().size()), max_shard_size);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, SaveTest, testing::Values("deepseek_v2", "deepseek_v3", "deepseek_v32"));

TEST_F(SaveTest, ShardsKeepTheLimitAndTheOrder) {
  std::vector<TensorInfo> infos;
  for (int i = 0; i < 200; ++i) infos.push_back({fmt::format("tensor.{}", i), DType::kF32, {i % 7, 50}});
  infos.push_back({"large", DType::kF32, {10000}});
  infos.push_back({"last", DType::kF32, {1}});
  const auto shards = PlanShards(infos, 6000);
  size_t next = 0;
  for (const auto& shard : shards) {
    std::vector<TensorInfo> part;
    for (const size_t i : shard) {
      EXPECT_EQ(i, next++);
      part.push_back(infos[i]);
    }
    if (part[0].name != "large") {
      EXPECT_LE(SafetensorsWriter::FileSize(part), 6000);
    } else {
      EXPECT_EQ(part.size(), 1u);
    }
  }
  EXPECT_EQ(next, infos.size());
  const Json index = IndexJson(infos, shards);
  EXPECT_EQ(index["weight_map"]["last"], ShardFileName(shards.size() - 1, shards.size()));
  int64_t bytes = 0;
  for (const TensorInfo& info : infos) bytes += info.NumBytes();
  EXPECT_EQ(index["metadata"]["total_size"], bytes);
}

TEST_F(SaveTest, CopiesCompanions) {
  const auto from = folder_.path() / "from";
  std::filesystem::create_directory(from);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE-MODEL", "modeling.py",
                           "config.json", "model.safetensors", "model.safetensors.index.json", "optimizer.bin"}) {
    WriteFileAtomically(from / name, name);
  }
  std::filesystem::create_directory(from / "folder.json");
  const Json config = TinyConfig();
  SaveCheckpoint(dir_, config, Views(TinyTensors(config)), {.companions = CompanionFiles(from)});
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) names.push_back(entry.path().filename().string());
  EXPECT_THAT(names, testing::UnorderedElementsAre("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE-MODEL",
                                                   "modeling.py", "config.json", "model.safetensors"));
  EXPECT_EQ(ReadTextFile(dir_ / "tokenizer.json"), "tokenizer.json");
  names.clear();
  for (const auto& file : HubCompanionFiles(from)) names.push_back(file.filename().string());
  EXPECT_THAT(names, testing::UnorderedElementsAre("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE-MODEL"));
  EXPECT_EQ(ReadJsonFile(dir_ / "config.json"), config);
}

// A file size limit stands for a full disk: writes fail in the middle.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit low{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &low);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_{};
};

TEST_F(SaveTest, FailedWriteLeavesNothing) {
  const Json config = TinyConfig();
  const auto tensors = TinyTensors(config);
  const auto save = [&] { SaveCheckpoint(dir_, config, Views(tensors), {.max_shard_size = 20000, .companions = {}, .overwrite = true}); };
  const auto expect_failure = [&] {
    const FileSizeLimit limit(10000);
    try {
      save();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kResource);
      EXPECT_THAT(e.what(), testing::HasSubstr("cannot write"));
    }
  };
  expect_failure();
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  save();
  expect_failure();
  ExpectSame(Checkpoint::Open(dir_), tensors);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / ".saved.partial"));
}

TEST_F(SaveTest, ExistingFolderIsKept) {
  std::filesystem::create_directory(dir_);
  const Json config = TinyConfig();
  EXPECT_THROW(SaveCheckpoint(dir_, config, Views(TinyTensors(config)), {}), Error);
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

}  // namespace
}  // namespace fathom
