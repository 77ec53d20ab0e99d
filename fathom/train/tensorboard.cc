#include "fathom/train/tensorboard.h"

#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdio>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/byte_stream.h"

namespace fathom {
namespace {

// Protobuf: a field is its number and wire type in one varint, then its value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void Key(ByteWriter& out, uint64_t field, WireType type) { out.Varint(field << 3 | type); }

void BytesField(ByteWriter& out, uint64_t field, std::string_view bytes) {
  Key(out, field, kBytes);
  out.Varint(bytes.size());
  out.Text(bytes);
}

// tensorflow.Summary.Value: tag = 1, simple_value = 2.
std::string SummaryValue(const std::string& tag, double value) {
  ByteWriter out;
  BytesField(out, 1, tag);
  Key(out, 2, kFixed32);
  out.U32(std::bit_cast<uint32_t>(static_cast<float>(value)));
  return out.bytes();
}

double SecondsSince1970() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// tensorflow.Event begins with wall_time = 1.
ByteWriter BeginEvent() {
  ByteWriter out;
  Key(out, 1, kFixed64);
  out.U64(std::bit_cast<uint64_t>(SecondsSince1970()));
  return out;
}

// Event: file_version = 3, the first record of every file.
std::string VersionEvent() {
  ByteWriter out = BeginEvent();
  BytesField(out, 3, "brain.Event:2");
  return out.bytes();
}

// Event: step = 2, summary = 5 (whose field 1 holds the values).
std::string ScalarsEvent(const Scalars& scalars) {
  ByteWriter summary, out = BeginEvent();
  for (const auto& [name, value] : scalars.values) BytesField(summary, 1, SummaryValue(name, value));
  Key(out, 2, kVarint);
  out.Varint(static_cast<uint64_t>(scalars.step));
  BytesField(out, 5, summary.bytes());
  return out.bytes();
}

// A checksum of data that holds checksums is weak, so TFRecord rotates it and adds a constant.
uint32_t MaskedCrc(std::string_view bytes) {
  const uint32_t crc = Crc32c(std::as_bytes(std::span(bytes)));
  return std::rotr(crc, 15) + 0xa282ead8u;
}

// TFRecord: length, its checksum, data, its checksum.
std::string Record(const std::string& data) {
  ByteWriter length, out;
  length.U64(data.size());
  out.Text(length.bytes());
  out.U32(MaskedCrc(length.bytes()));
  out.Text(data);
  out.U32(MaskedCrc(data));
  return out.bytes();
}

class TensorBoardSink : public ScalarSink {
 public:
  explicit TensorBoardSink(const std::filesystem::path& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
    if (file_ == nullptr) Throw(ErrorCode::kResource, "{}: cannot open for writing", path.string());
    Append(VersionEvent());
  }
  ~TensorBoardSink() override { std::fclose(file_); }
  void Write(const Scalars& scalars) override { Append(ScalarsEvent(scalars)); }
  void Flush() override {
    if (std::fflush(file_) != 0) Throw(ErrorCode::kResource, "{}: cannot write", path_.string());
  }

 private:
  void Append(const std::string& event) {
    const std::string record = Record(event);
    if (std::fwrite(record.data(), 1, record.size(), file_) != record.size())
      Throw(ErrorCode::kResource, "{}: cannot write", path_.string());
    Flush();
  }

  std::filesystem::path path_;
  std::FILE* file_;
};

}  // namespace

std::unique_ptr<ScalarSink> OpenTensorBoardSink(const std::filesystem::path& dir) {
  std::error_code failed;
  std::filesystem::create_directories(dir, failed);
  if (failed) Throw(ErrorCode::kResource, "{}: cannot create: {}", dir.string(), failed.message());
  return std::make_unique<TensorBoardSink>(dir / fmt::format("events.out.tfevents.{:.0f}.{}", SecondsSince1970(), ::getpid()));
}

}  // namespace fathom
