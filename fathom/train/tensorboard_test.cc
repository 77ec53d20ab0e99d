#include "fathom/train/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/orbax/byte_stream.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  bool starts = false;
  std::map<std::string, float> scalars;
};

// A reader of its own, so that a mistake of the writer can't hide in shared code.
void ReadValue(ByteReader value, Event& event) {
  std::string tag;
  while (value.left() > 0) {
    const uint64_t key = value.Varint();
    if (key == (1 << 3 | 2)) {
      tag = value.TakeText(value.Varint());
    } else {
      ASSERT_EQ(key, 2u << 3 | 5);
      event.scalars[tag] = std::bit_cast<float>(value.U32());
    }
  }
}

Event ReadEvent(ByteReader in) {
  Event event;
  while (in.left() > 0) {
    const uint64_t key = in.Varint();
    if (key == (1 << 3 | 1)) event.wall_time = std::bit_cast<double>(in.U64());
    if (key == (2 << 3 | 0)) event.step = static_cast<int64_t>(in.Varint());
    if (key == (3 << 3 | 2)) event.version = in.TakeText(in.Varint());
    if (key == (7 << 3 | 2)) event.starts = in.TakeText(in.Varint()) == std::string_view("\x08\x01");
    if (key != (5 << 3 | 2)) continue;
    ByteReader summary(in.Take(in.Varint()), "summary");
    while (summary.left() > 0) {
      EXPECT_EQ(summary.Varint(), 1u << 3 | 2);
      ReadValue(ByteReader(summary.Take(summary.Varint()), "value"), event);
    }
  }
  return event;
}

void CheckCrc(std::span<const std::byte> bytes, uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  EXPECT_EQ(Crc32c(bytes), rotated << 15 | rotated >> 17);
}

std::vector<Event> ReadEvents(const std::string& content) {
  ByteReader in(std::as_bytes(std::span(content)), "events");
  std::vector<Event> events;
  while (in.left() > 0) {
    const auto length_bytes = in.Take(8);
    const uint64_t length = ByteReader(length_bytes, "length").U64();
    CheckCrc(length_bytes, in.U32());
    const auto data = in.Take(length);
    CheckCrc(data, in.U32());
    events.push_back(ReadEvent(ByteReader(data, "event")));
  }
  return events;
}

std::string OnlyFile(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(dir), {});
  EXPECT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].filename().string().starts_with("events.out.tfevents."));
  return ReadTextFile(files[0]);
}

TEST(TensorBoard, WritesWhatItIsGiven) {
  const TemporaryFolder folder;
  const auto sink = OpenTensorBoardSink(folder.path() / "run" / "tensorboard", 0);
  Scalars first{.step = 0}, second{.step = 300};
  first.Add("learning/loss", 5.25);
  first.Add("perf/step_time_seconds", 0.125);
  second.Add("learning/loss", std::nan(""));
  sink->Write(first);
  sink->Write(second);
  const auto events = ReadEvents(OnlyFile(folder.path() / "run" / "tensorboard"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_GT(events[0].wall_time, 1.6e9);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"learning/loss", 5.25f}, {"perf/step_time_seconds", 0.125f}}));
  EXPECT_EQ(events[2].step, 300);
  EXPECT_TRUE(std::isnan(events[2].scalars.at("learning/loss")));
}

// The files of earlier processes keep the steps before, whole; the new file says so to a TensorBoard that has read the others.
TEST(TensorBoard, StepsThatRunAgainTakeTheirOldEventsPlace) {
  const TemporaryFolder folder;
  const auto write = [&](int64_t first, int64_t last) {
    const auto sink = OpenTensorBoardSink(folder.path(), first);
    for (int64_t step = first; step <= last; ++step) {
      Scalars scalars{.step = step};
      scalars.Add("learning/loss", static_cast<double>(step));
      sink->Write(scalars);
    }
  };
  write(0, 9);
  const std::filesystem::path old = folder.path() / "events.out.tfevents.1.1";
  std::filesystem::rename(std::filesystem::directory_iterator(folder.path())->path(), old);
  const std::string whole = ReadTextFile(old);
  WriteFileAtomically(old, whole.substr(0, whole.size() - 3));  // killed while it wrote step 9
  write(4, 5);
  std::vector<int64_t> kept;
  for (const Event& event : ReadEvents(ReadTextFile(old))) {
    if (!event.scalars.empty()) kept.push_back(event.step);
  }
  EXPECT_EQ(kept, (std::vector<int64_t>{0, 1, 2, 3}));
  std::filesystem::remove(old);
  const auto events = ReadEvents(OnlyFile(folder.path()));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[1].step, 4);
  EXPECT_TRUE(events[1].starts);
  EXPECT_EQ(events[3].scalars.at("learning/loss"), 5.0f);
}

TEST(TensorBoard, FolderThatCannotBeMade) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "file", "");
  try {
    OpenTensorBoardSink(folder.path() / "file" / "tensorboard", 0);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kResource);
  }
}

}  // namespace
}  // namespace fathom
