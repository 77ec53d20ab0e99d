#include "fathom/checkpoint/safetensors/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::HasSubstr;

// A file from its parts; length: what the prefix says, -1: the truth.
std::string FileText(const std::string& header, const std::string& data, int64_t length = -1) {
  const uint64_t n = length >= 0 ? static_cast<uint64_t>(length) : header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

class SafetensorsTest : public testing::Test {
 protected:
  std::filesystem::path Put(const std::string& text) {
    const auto path = folder_.path() / "model.safetensors";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  // The error of opening a file with this content; "" if it opens.
  std::string OpenError(const std::string& text) {
    try {
      SafetensorsFile::Open(Put(text));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      EXPECT_THAT(e.what(), HasSubstr("model.safetensors"));
      EXPECT_THAT(e.what(), testing::Not(HasSubstr("\n")));
      return e.what();
    }
    return "";
  }
  std::string HeaderError(const std::string& header, size_t data_bytes) {
    return OpenError(FileText(header, std::string(data_bytes, 'x')));
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsTest, WriterAndReaderAgree) {
  const std::vector<TensorInfo> infos = {{"odd", DType::kF8E4M3, {3, 5}},
                                         {"wide", DType::kF32, {2, 2}},
                                         {"half", DType::kBF16, {3}},
                                         {"none", DType::kF32, {0, 7}},
                                         {"scalar", DType::kI64, {}}};
  const auto path = folder_.path() / "x.safetensors";
  SafetensorsWriter writer(path, infos);
  Tensor odd(DType::kF8E4M3, {3, 5}), wide(DType::kF32, {2, 2}), half(DType::kBF16, {3}), scalar(DType::kI64, {});
  for (int64_t i = 0; i < 15; ++i) odd.mutable_data<F8E4M3>()[i].bits = static_cast<uint8_t>(i);
  for (int64_t i = 0; i < 4; ++i) wide.mutable_data<float>()[i] = 0.5f * static_cast<float>(i);
  half.mutable_data<BF16>()[2] = ToBF16(3);
  scalar.mutable_data<int64_t>()[0] = -7;
  writer.WriteBytes(0, 10, {odd.view().raw() + 10, 5});
  writer.WriteBytes(0, 0, {odd.view().raw(), 10});
  writer.Write(4, scalar);
  writer.Write(1, wide);
  writer.Write(2, half);
  writer.Write(3, Tensor(DType::kF32, {0, 7}));
  writer.Close();
  EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(path)), SafetensorsWriter::FileSize(infos));

  const auto file = SafetensorsFile::Open(path);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  ASSERT_EQ(file->entries().size(), infos.size());
  EXPECT_EQ(file->entries()[0].name, "scalar");  // the widest first
  for (const Tensor& tensor : {odd, wide, half, scalar}) {
    const auto& info =
        *std::ranges::find_if(infos, [&](const TensorInfo& i) { return i.dtype == tensor.dtype() && i.shape == tensor.shape(); });
    const TensorEntry* entry = file->Find(info.name);
    ASSERT_NE(entry, nullptr);
    const Tensor got = file->Get(*entry);
    EXPECT_FALSE(got.writable());
    EXPECT_EQ(got.shape(), info.shape);
    EXPECT_EQ(std::memcmp(got.view().raw(), tensor.view().raw(), static_cast<size_t>(tensor.NumBytes())), 0) << info.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(got.view().raw()) % static_cast<uintptr_t>(DTypeSize(info.dtype)), 0u);
  }
  EXPECT_EQ(file->Find("absent"), nullptr);
}

TEST_F(SafetensorsTest, WritesStridedViews) {
  Tensor matrix(DType::kF32, {3, 4});
  for (int64_t i = 0; i < 12; ++i) matrix.mutable_data<float>()[i] = static_cast<float>(i);
  const auto path = folder_.path() / "x.safetensors";
  SafetensorsWriter writer(path, {{"columns", DType::kF32, {3, 2}}});
  writer.Write(0, matrix.view().Cols(1, 3));
  writer.Close();
  const auto file = SafetensorsFile::Open(path);
  const Tensor got = file->Get(file->entries()[0]);
  EXPECT_THAT(std::vector<float>(got.data<float>(), got.data<float>() + 6), testing::ElementsAre(1, 2, 5, 6, 9, 10));
}

TEST_F(SafetensorsTest, TensorOutlivesTheFileObject) {
  Tensor tensor;
  {
    const auto file =
        SafetensorsFile::Open(Put(FileText(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} )", std::string("\0\0\x80\x3f", 4))));
    tensor = file->Get(file->entries()[0]);
  }
  EXPECT_EQ(tensor.data<float>()[0], 1.0f);
}

TEST_F(SafetensorsTest, MisalignedTensorsAreCopied) {
  const auto file = SafetensorsFile::Open(
      Put(FileText(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                   std::string("\x07\0\0\x80\x3f", 5))));
  const Tensor b = file->Get(*file->Find("b"));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.view().raw()) % 4, 0u);
  EXPECT_EQ(b.data<float>()[0], 1.0f);
}

TEST_F(SafetensorsTest, EmptyFileOfTensorsIsSound) { EXPECT_EQ(OpenError(FileText("{}", "")), ""); }

TEST_F(SafetensorsTest, BrokenFiles) {
  EXPECT_THAT(OpenError(""), HasSubstr("0 bytes, too short"));
  EXPECT_THAT(OpenError("1234567"), HasSubstr("too short"));
  EXPECT_THAT(OpenError(FileText("{}", "", 1)), HasSubstr("not valid JSON"));
  EXPECT_THAT(OpenError(FileText("{}", "", 3)), HasSubstr("truncated"));
  EXPECT_THAT(OpenError(FileText("{}", "", int64_t{1} << 62)), HasSubstr("at most 100000000"));
  EXPECT_THAT(OpenError(FileText(std::string(16, '{'), "")), HasSubstr("not valid JSON"));
  EXPECT_THAT(OpenError(FileText("[]", "")), HasSubstr("not a JSON object"));
  EXPECT_THAT(OpenError(FileText(std::string(5000, '['), "")), HasSubstr("deeper"));
  EXPECT_THAT(OpenError(FileText("{}", "x")), HasSubstr("describes 10 bytes, the file has 11"));
}

TEST_F(SafetensorsTest, BrokenEntries) {
  const struct {
    const char* entry;
    const char* message;
  } cases[] = {
      {R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", ""},
      {R"("dtype":"Q7","shape":[2],"data_offsets":[0,8])", "dtype \"Q7\" is not known"},
      {R"("dtype":7,"shape":[2],"data_offsets":[0,8])", "dtype 7 is not known"},
      {R"("shape":[2],"data_offsets":[0,8])", "no dtype"},
      {R"("dtype":"F32","data_offsets":[0,8])", "no shape"},
      {R"("dtype":"F32","shape":[2])", "no data_offsets"},
      {R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)", "fields that are not known"},
      {R"("dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8])", "stands twice"},
      {R"("dtype":"F64","shape":[2],"data_offsets":[0,8])", "give it 8 bytes, F64 [2] needs 16"},
      {R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", "give it 8 bytes, F32 [3] needs 12"},
      {R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", "not a list of counts"},
      {R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", "not a list of counts"},
      {R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])", "not a list of counts"},
      {R"("dtype":"F32","shape":2,"data_offsets":[0,8])", "not a list"},
      {R"("dtype":"F32","shape":[1,1,1,1,1,2],"data_offsets":[0,8])", "more than 5 dimensions"},
      {R"("dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,8])", "overflows"},
      {R"("dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,8])", "overflows"},
      {R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", "reversed"},
      {R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])", "not two positions"},
      {R"("dtype":"F32","shape":[2],"data_offsets":[0])", "not two positions"},
      {R"("dtype":"F32","shape":[2],"data_offsets":[0,1125899906842624])", "beyond the 8 bytes"},
  };
  for (const auto& c : cases) {
    const std::string error = HeaderError(fmt::format(R"({{"w":{{{}}}}})", c.entry), 8);
    if (*c.message == 0) {
      EXPECT_EQ(error, "");
    } else {
      EXPECT_THAT(error, HasSubstr(c.message)) << c.entry;
      EXPECT_THAT(error, HasSubstr(std::string(c.message) == "stands twice" ? "shape" : "\"w\"")) << c.entry;
    }
  }
  EXPECT_THAT(HeaderError(R"({"w":5})", 0), HasSubstr("not an object"));
  EXPECT_THAT(HeaderError(R"({"__metadata__":{"format":5}})", 0), HasSubstr("not a string"));
  EXPECT_THAT(HeaderError(R"({"__metadata__":"pt"})", 0), HasSubstr("not an object"));
}

TEST_F(SafetensorsTest, BrokenLayout) {
  const auto two = [](const char* first, const char* second) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                       first, second);
  };
  EXPECT_EQ(HeaderError(two("[0,4]", "[4,8]"), 8), "");
  EXPECT_EQ(HeaderError(two("[4,8]", "[0,4]"), 8), "");
  EXPECT_THAT(HeaderError(two("[0,4]", "[3,7]"), 7), HasSubstr("\"a\" and \"b\" overlap"));
  EXPECT_THAT(HeaderError(two("[0,4]", "[0,4]"), 4), HasSubstr("overlap"));
  EXPECT_THAT(HeaderError(two("[0,4]", "[5,9]"), 9), HasSubstr("1 bytes before tensor \"b\" belong to no tensor"));
  EXPECT_THAT(HeaderError(two("[1,5]", "[5,9]"), 9), HasSubstr("before tensor \"a\""));
  EXPECT_THAT(HeaderError(two("[0,4]", "[4,8]"), 9), HasSubstr("the file has"));
  EXPECT_THAT(
      HeaderError(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
      HasSubstr("stands twice"));
}

TEST_F(SafetensorsTest, FilesThatCannotBeOpened) {
  EXPECT_THROW(SafetensorsFile::Open(folder_.path() / "absent"), Error);
  EXPECT_THROW(SafetensorsFile::Open(folder_.path()), Error);
}

}  // namespace
}  // namespace fathom
