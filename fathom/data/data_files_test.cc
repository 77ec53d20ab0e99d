#include "fathom/data/data_files.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

std::string MessageOf(const std::string& dataset_path) {
  try {
    FindDataFiles(dataset_path);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

TEST(CutPoint, PrefersParagraphsThenLinesThenWholeCharacters) {
  EXPECT_EQ(CutPoint("short", 5), 5u);
  EXPECT_EQ(CutPoint("aaaaaa\n\nbb\ncc", 12), 8u);
  EXPECT_EQ(CutPoint("aaaaaaa\nbbbbb", 12), 8u);
  EXPECT_EQ(CutPoint("\n\naaaaaaaaaaa", 12), 12u);
  EXPECT_EQ(CutPoint("aaa\u00e9\u00e9", 4), 3u);
  EXPECT_EQ(CutPoint("aaa\u00e9\u00e9", 5), 5u);
  EXPECT_EQ(CutPoint("\x80\x80\x80\x80\x80\x80\x80\x80", 5), 1u);  // not UTF-8 at all: still moves on
}

TEST(FindDataFiles, FoldersGlobsAndLists) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() / "sub/.hidden");
  for (const char* name : {"b.txt", "a.txt", "c.jsonl", ".d.txt", "sub/e.txt", "sub/.hidden/f.txt"})
    WriteFileAtomically(folder.path() / name, "x");
  const auto names = [&](const std::string& list) {
    std::string out;
    for (const DataFile& f : FindDataFiles(list)) out += f.path.lexically_relative(folder.path()).string() + " ";
    return out;
  };
  const std::string base = folder.path().string();
  EXPECT_EQ(names(base), "a.txt b.txt c.jsonl sub/e.txt ");
  EXPECT_EQ(names(base + "/*.txt"), "a.txt b.txt ");
  EXPECT_EQ(names(base + "/c.jsonl," + base + "/*.txt," + base + "/a.txt"), "a.txt b.txt c.jsonl ");
  EXPECT_NE(MessageOf(base + "/*.md").find("no file matches"), std::string::npos);
  EXPECT_NE(MessageOf("").find("empty"), std::string::npos);
  WriteFileAtomically(folder.path() / "f.arrow", "ARROW1");
  EXPECT_NE(MessageOf(base).find("f.arrow: not text"), std::string::npos);
}

TEST(CutIntoExtents, CoversEveryByteOnceAndCutsTextAtLines) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i) + (i % 9 == 0 ? "\n\n" : "\n");
  std::string compressed(ZSTD_compressBound(text.size()), '\0');
  compressed.resize(ZSTD_compress(compressed.data(), compressed.size(), text.data(), text.size(), 3));
  for (const char* name : {"a.txt", "b.jsonl", "c.txt.zst", "d.txt"})
    WriteFileAtomically(folder.path() / name, name[0] == 'd' ? "" : name[0] == 'c' ? compressed : text);
  const std::vector<DataFile> files = FindDataFiles(folder.path().string());
  std::vector<int64_t> covered(files.size());
  for (const Extent& e : CutIntoExtents(files, 50)) {
    EXPECT_EQ(e.begin, covered[static_cast<size_t>(e.file)]);
    EXPECT_GT(e.end, e.begin);
    covered[static_cast<size_t>(e.file)] = e.end;
    if (e.file == 0) {
      EXPECT_EQ(text[static_cast<size_t>(e.end) - 1], '\n');
    }
    if (e.file == 2) {
      EXPECT_EQ(e.end, files[2].bytes);
    }
  }
  for (size_t i = 0; i < files.size(); ++i) EXPECT_EQ(covered[i], files[i].bytes);
}

}  // namespace
}  // namespace fathom
