// What the tests of conversions share.
#pragma once

#include <gtest/gtest.h>

#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {

// Tensors of the config; an MTP module's copies equal what they are copies of, as the hub has them.
inline std::vector<TestTensor> TensorsOf(const Json& config) {
  std::vector<TestTensor> tensors = TinyTensors(config);
  const ModelConfig model = ParseModelConfig(config, "test");
  const ModelSpec spec(model);
  for (const ParamSpec& param : spec) {
    if (param.is_copy()) FindTensor(tensors, param.name).tensor = FindTensor(tensors, spec.Original(param).name).tensor;
  }
  return tensors;
}

inline void ExpectSameTensors(const std::filesystem::path& got_dir, const std::vector<TestTensor>& want) {
  const TensorFolder got = TensorFolder::Open(got_dir);
  EXPECT_EQ(got.names().size(), want.size());
  for (const TestTensor& t : want) {
    const TensorEntry* entry = got.Find(t.name);
    ASSERT_NE(entry, nullptr) << t.name;
    EXPECT_EQ(entry->dtype, t.tensor.dtype()) << t.name;
    ASSERT_EQ(entry->shape, t.tensor.shape()) << t.name;
    const Tensor mapped = got.Get(t.name);
    EXPECT_EQ(std::memcmp(mapped.view().raw(), t.tensor.view().raw(), static_cast<size_t>(t.tensor.NumBytes())), 0) << t.name;
  }
}

class ConvertTest : public testing::Test {
 protected:
  std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }
  ConvertOptions To(CheckpointFormat to, const std::string& input, const std::string& output) const {
    ConvertOptions options;
    options.input = Path(input);
    options.output = Path(output);
    options.to = to;
    return options;
  }
  TemporaryFolder folder_;
};

}  // namespace fathom
