#include "fathom/train/tensorboard.h"

#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdio>
#include <limits>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/orbax/byte_stream.h"

namespace fathom {
namespace {

constexpr const char* kFileName = "events.out.tfevents.";

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

// Event: step = 2, session_log = 7 (status = 1: a start, 1): what was read of this step and later ones no longer holds.
std::string StartEvent(int64_t step) {
  ByteWriter log, out = BeginEvent();
  Key(log, 1, kVarint);
  log.Varint(1);
  Key(out, 2, kVarint);
  out.Varint(static_cast<uint64_t>(step));
  BytesField(out, 7, log.bytes());
  return out.bytes();
}

// Does the event hold scalars of a step from `first` on?
bool IsFrom(int64_t first, std::span<const std::byte> event, const std::string& where) {
  ByteReader in(event, where);
  int64_t step = 0;
  bool scalars = false;
  while (in.left() > 0) {
    const uint64_t key = in.Varint(), type = key & 7;
    scalars |= key >> 3 == 5;
    if (key == (2 << 3 | kVarint)) {
      step = static_cast<int64_t>(in.Varint());
    } else if (type == kVarint) {
      in.Varint();
    } else {
      in.Take(type == kBytes ? in.Varint() : type == kFixed32 ? 4 : 8);
    }
  }
  return scalars && step >= first;
}

// The records of a file without those. A record that a killed process left half ends it, as it does for TensorBoard.
std::string WithoutStepsFrom(int64_t first, const std::string& text, const std::string& where) {
  std::string kept;
  ByteReader in(std::as_bytes(std::span(text)), where);
  try {
    while (in.left() > 0) {
      const size_t begin = text.size() - in.left();
      const uint64_t length = in.U64();
      in.U32();
      const bool drop = IsFrom(first, in.Take(length), where);
      in.U32();
      if (!drop) kept.append(text, begin, text.size() - in.left() - begin);
    }
  } catch (const Error&) {
    return kept;
  }
  return kept;
}

// Whether there were some.
bool DropEventsFrom(const std::filesystem::path& dir, int64_t first) {
  bool dropped = false;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (!entry.is_regular_file() || !entry.path().filename().string().starts_with(kFileName)) continue;
    const std::string text = ReadTextFile(entry.path(), std::numeric_limits<size_t>::max());
    const std::string kept = WithoutStepsFrom(first, text, entry.path().string());
    if (kept.size() == text.size()) continue;
    WriteFileAtomically(entry.path(), kept);
    dropped = true;
  }
  return dropped;
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
  void StartFrom(int64_t step) { Append(StartEvent(step)); }
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

std::unique_ptr<ScalarSink> OpenTensorBoardSink(const std::filesystem::path& dir, int64_t first_step) {
  std::error_code failed;
  std::filesystem::create_directories(dir, failed);
  if (failed) Throw(ErrorCode::kResource, "{}: cannot create: {}", dir.string(), failed.message());
  const bool again = DropEventsFrom(dir, first_step);
  auto sink = std::make_unique<TensorBoardSink>(dir / fmt::format("{}{:.0f}.{}", kFileName, SecondsSince1970(), ::getpid()));
  if (again) sink->StartFrom(first_step);
  return sink;
}

}  // namespace fathom
