#include "fathom/data/document_reader.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

std::string Compress(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::vector<Document> ReadAll(const std::string& dataset_path, int64_t extent_bytes) {
  const std::vector<DataFile> files = FindDataFiles(dataset_path);
  std::vector<Document> documents;
  for (const Extent& extent : CutIntoExtents(files, extent_bytes)) {
    DocumentReader reader(files[static_cast<size_t>(extent.file)], extent, "text", static_cast<size_t>(extent_bytes));
    Document document;
    while (reader.Next(&document)) documents.push_back(document);
  }
  return documents;
}

std::string Joined(const std::vector<Document>& documents) {
  std::string text;
  for (const Document& d : documents) text += d.text;
  return text;
}

std::string MessageOf(const std::string& dataset_path) {
  try {
    ReadAll(dataset_path, 1000);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

// Paragraphs of words, some with two-byte characters; without any line end where lines is false.
std::string Prose(int paragraphs, bool lines) {
  std::string text;
  for (int p = 0; p < paragraphs; ++p) {
    for (int w = 0; w < 20 + p % 13; ++w) text += (w % 3 == 0 ? "b\u00e9ta " : "gamma ");
    if (lines) text += p % 4 == 0 ? "\n\n" : "\n";
  }
  return text;
}

TEST(DocumentReader, PlainTextIsWholeAndInOrder) {
  const TemporaryFolder folder;
  for (const bool lines : {true, false}) {
    const std::string text = Prose(200, lines);
    WriteFileAtomically(folder.path() / "a.txt", text);
    WriteFileAtomically(folder.path() / "b.txt.zst", Compress(text));
    for (const char* name : {"a.txt", "b.txt.zst"}) {
      for (const int64_t size : {64, 1000, 100000}) {
        const std::vector<Document> documents = ReadAll((folder.path() / name).string(), size);
        EXPECT_EQ(Joined(documents), text) << name << " " << size;
        for (size_t i = 0; i < documents.size(); ++i) {
          EXPECT_LE(documents[i].text.size(), static_cast<size_t>(size));
          EXPECT_EQ(documents[i].ends, i + 1 == documents.size()) << name << " " << size << " " << i;
          EXPECT_NE(static_cast<uint8_t>(documents[i].text[0]) & 0xC0, 0x80) << "a character is cut in two";
        }
      }
    }
  }
}

TEST(DocumentReader, JsonLinesWhereverTheExtentsAreCut) {
  const TemporaryFolder folder;
  std::string lines;
  std::vector<std::string> want;
  for (int i = 0; i < 60; ++i) {
    want.push_back("document " + std::to_string(i) + std::string(static_cast<size_t>(i % 7), 'x'));
    lines += "{\"id\": " + std::to_string(i) + ", \"text\": \"" + want.back() + "\"}\n";
    if (i % 10 == 0) lines += "\n";
  }
  lines.pop_back();  // no line end behind the last one
  WriteFileAtomically(folder.path() / "a.jsonl", lines);
  WriteFileAtomically(folder.path() / "b.jsonl.zst", Compress(lines));
  for (const char* name : {"a.jsonl", "b.jsonl.zst"}) {
    for (const int64_t size : {1, 7, 41, 300, 100000}) {
      std::vector<std::string> got;
      for (const Document& d : ReadAll((folder.path() / name).string(), size)) {
        EXPECT_TRUE(d.ends);
        got.push_back(d.text);
      }
      EXPECT_EQ(got, want) << name << " " << size;
    }
  }
}

TEST(DocumentReader, BadInputNamesFileAndPlace) {
  const TemporaryFolder folder;
  const auto message = [&](const char* name, const std::string& content) {
    WriteFileAtomically(folder.path() / name, content);
    return MessageOf((folder.path() / name).string());
  };
  EXPECT_NE(message("a.jsonl", "{\"text\": \"good\"}\n{\"text\": oops}\n").find("a.jsonl, line 2"), std::string::npos);
  EXPECT_NE(message("b.jsonl", "{\"body\": \"x\"}\n").find("no string \"text\""), std::string::npos);
  EXPECT_NE(message("c.jsonl", "[1]\n").find("train_data_columns"), std::string::npos);
  const std::string whole = Compress(Prose(300, true));
  EXPECT_NE(message("d.txt.zst", whole.substr(0, whole.size() - 5)).find("truncated"), std::string::npos);
  EXPECT_NE(message("e.txt.zst", "this is not zstd").find("damaged"), std::string::npos);
}

}  // namespace
}  // namespace fathom
