#include "fathom/checkpoint/orbax/ocdbt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/base/rng.h"
#include "fathom/checkpoint/orbax/byte_stream.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

fs::path Data(const std::string& name) { return fs::path(FATHOM_TEST_DATA) / "orbax" / name; }

std::string Hex(const std::string& bytes) {
  std::string out;
  for (const unsigned char c : bytes) out += fmt::format("{:02x}", c);
  return out;
}

std::map<std::string, std::string> Content(const KeyStore& store) {
  std::map<std::string, std::string> content;
  for (const std::string& key : store.Keys()) content[key] = store.Read(*store.Find(key), 1 << 20);
  return content;
}

void ExpectSample(const std::string& name) {
  const OcdbtStore store(Data(name) / "items");
  std::map<std::string, std::string> got;
  for (const auto& [key, value] : Content(store)) got[key] = Hex(value);
  const Json json = ReadJsonFile(Data(name) / "values.json");
  EXPECT_EQ(got, (json.get<std::map<std::string, std::string>>()));
  EXPECT_FALSE(store.Find("absent"));
}

TEST(Ocdbt, TensorStoresManyLevels) { ExpectSample("ocdbt-multilevel"); }
TEST(Ocdbt, TensorStoresManyGenerations) { ExpectSample("ocdbt-generations"); }

TEST(Crc32c, KnownValues) {
  EXPECT_EQ(Crc32c(std::as_bytes(std::span("123456789", 9))), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32)), 0x8A9136AAu);  // RFC 3720 B.4
  EXPECT_EQ(Crc32c(std::as_bytes(std::span("56789", 5)), Crc32c(std::as_bytes(std::span("1234", 4)))), 0xE3069283u);
}

TEST(ByteReader, Varints) {
  ByteWriter out;
  const std::vector<uint64_t> values = {0, 1, 127, 128, 300, uint64_t{1} << 32, UINT64_MAX};
  for (const uint64_t x : values) out.Varint(x);
  ByteReader in(out.span(), "x");
  EXPECT_EQ(in.Varints(values.size()), values);
  in.CheckAllRead();
  const std::string endless(11, '\xff');
  EXPECT_THROW(ByteReader(std::as_bytes(std::span(endless)), "x").Varint(), Error);
  EXPECT_THROW(ByteReader({}, "x").U8(), Error);
}

struct Database {
  TemporaryFolder folder;
  std::map<std::string, std::string> content;

  // Random keys and values; a data file for the long ones.
  Database(uint64_t seed, size_t keys, uint64_t node_bytes, bool zstd) {
    const CounterRng rng(seed, 0);
    fs::create_directories(folder.path() / "d");
    std::string data;
    std::map<std::string, OcdbtItem> items;
    for (uint64_t i = 0; i < keys; ++i) {
      const std::string key = fmt::format("layer{}.w{}/c/{}", rng.Below(4 * i, 7), rng.Below(4 * i + 1, 90), i);
      std::string value;
      for (uint64_t b = 0, n = rng.Below(4 * i + 2, 60); b < n; ++b) value += static_cast<char>(rng.Bits(1000000 + 100 * i + b));
      const bool is_inline = value.size() < 30;
      items[key] = is_inline ? OcdbtItem{true, value} : OcdbtItem{false, "", "d/data", data.size(), value.size()};
      if (!is_inline) data += value;
      content[key] = value;
    }
    std::ofstream(folder.path() / "d/data", std::ios::binary) << data;
    OcdbtWriteOptions options;
    options.config.zstd = zstd;
    options.node_bytes = node_bytes;
    options.tree_file = "d/tree";
    WriteOcdbtTree(folder.path(), items, options);
  }
};

TEST(Ocdbt, WhatIsWrittenReadsBack) {
  for (const auto& [keys, node_bytes] : {std::pair<size_t, uint64_t>{1, 1000}, {50, 1 << 20}, {400, 2000}, {400, 300}}) {
    for (const bool zstd : {false, true}) {
      SCOPED_TRACE(fmt::format("{} keys, nodes of {}, zstd {}", keys, node_bytes, zstd));
      const Database database(keys, keys, node_bytes, zstd);
      const OcdbtStore store(database.folder.path());
      EXPECT_EQ(Content(store), database.content);
      EXPECT_EQ(store.manifest().versions.back().root_height > 0, keys * 40 > node_bytes);
    }
  }
}

std::string ErrorOf(const auto& run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

std::string Bytes(const fs::path& path) { return ReadTextFile(path); }
void Put(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

TEST(Ocdbt, DamageIsNamed) {
  const Database database(3, 60, 500, false);
  const fs::path root = database.folder.path(), manifest = root / kOcdbtManifest, tree = root / "d/tree";
  const auto open = [&] { Content(OcdbtStore(root)); };
  for (const fs::path& path : {manifest, tree}) {
    const std::string whole = Bytes(path);
    for (size_t i = 0; i < whole.size(); i += 7) {  // every byte is under a checksum
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
      Put(path, damaged);
      EXPECT_THAT(ErrorOf(open), HasSubstr(path.string())) << i;
    }
    Put(path, whole.substr(0, whole.size() / 2));
    EXPECT_THAT(ErrorOf(open), testing::AllOf(HasSubstr(path.string()), HasSubstr("truncated")));
    Put(path, "");
    EXPECT_THAT(ErrorOf(open), HasSubstr(path.string()));
    fs::remove(path);
    EXPECT_NE(ErrorOf(open), "");
    Put(path, whole);
    EXPECT_EQ(ErrorOf(open), "");
  }
  Put(root / "d/data", "short");
  EXPECT_THAT(ErrorOf(open), HasSubstr("truncated"));
}

// A whole frame with a right checksum around a body of our choice.
std::string Framed(uint32_t magic, const std::string& body, int compression = 0) {
  ByteWriter out;
  out.U32Big(magic);
  out.U64(18 + body.size());
  out.Varint(0);
  out.Varint(static_cast<uint64_t>(compression));
  out.Text(body);
  out.U32(Crc32c(out.span()));
  return out.bytes();
}

std::string NodeError(const std::string& bytes) {
  return ErrorOf([&] { ParseOcdbtNode(std::as_bytes(std::span(bytes)), "", 1 << 20, "node"); });
}

TEST(Ocdbt, BodiesThatLie) {
  constexpr uint32_t kNode = 0x0cdb20de;
  EXPECT_THAT(NodeError(Framed(kNode, "")), HasSubstr("truncated"));
  EXPECT_THAT(NodeError(Framed(0x0cdb3a2a, "")), HasSubstr("wrong magic"));
  EXPECT_THAT(NodeError(Framed(kNode, std::string(1, 0), 7)), HasSubstr("compression 7"));
  EXPECT_THAT(NodeError(Framed(kNode, "not zstd", 1)), HasSubstr("zstd"));
  const std::string many("\x00\xff\xff\xff\xff\x0f", 6);  // 4 billion data files
  EXPECT_THAT(NodeError(Framed(kNode, many)), HasSubstr("damaged"));
  const std::string leads_out("\x00\x01\x05\x00../xy\x01\x01k\x00\x00", 14);
  EXPECT_THAT(NodeError(Framed(kNode, leads_out)), HasSubstr("leads out"));
  const std::string no_entries("\x00\x00\x00", 3);
  EXPECT_THAT(NodeError(Framed(kNode, no_entries)), HasSubstr("without entries"));
  const std::string unknown_file("\x00\x00\x01\x01k\x05\x01\x03\x00", 9);  // value in data file 3 of none
  EXPECT_THAT(NodeError(Framed(kNode, unknown_file)), HasSubstr("data file 3 of 0"));
  const std::string sound("\x00\x00\x01\x01k\x02\x00xy", 9);
  EXPECT_EQ(NodeError(Framed(kNode, sound)), "");
  const std::string out_of_order(
      "\x00\x00\x02\x00\x01\x01"
      "ba"
      "\x00\x00\x00\x00",
      12);
  EXPECT_THAT(NodeError(Framed(kNode, out_of_order)), HasSubstr("ascending"));
  EXPECT_THAT(NodeError(Framed(kNode, sound + "z")), HasSubstr("left over"));
}

constexpr OcdbtSpan kNowhere = {0, UINT64_MAX, UINT64_MAX};

// An interior node whose children are all the same bytes, under names of their own.
std::string Interior(uint8_t height, size_t children, const OcdbtSpan& child) {
  OcdbtNode node;
  node.height = height;
  node.files = {{"", "d/tree"}};
  for (size_t i = 0; i < children; ++i) {
    const std::string key(1, static_cast<char>('a' + i));
    node.children.push_back({key, 1, child, {1, 0, 0}});
  }
  return FormatOcdbtNode(node, false, 0);
}

// A database of these nodes in one file, the last one the root.
struct Crafted {
  TemporaryFolder folder;
  std::string tree;
  OcdbtSpan last;

  OcdbtSpan Add(const std::string& node) {
    last = {0, tree.size(), node.size()};
    tree += node;
    return last;
  }
  std::string Error(uint8_t height, uint64_t num_keys) {
    fs::create_directories(folder.path() / "d");
    Put(folder.path() / "d/tree", tree);
    OcdbtManifest manifest;
    manifest.files = {{"", "d/tree"}};
    manifest.versions = {{1, height, last, {num_keys, 0, 0}, 0}};
    Put(folder.path() / kOcdbtManifest, FormatOcdbtManifest(manifest));
    return ErrorOf([&] { OcdbtStore store(folder.path()); });
  }
};

std::string Leaf(const std::vector<std::string>& keys) {
  OcdbtNode node;
  for (const std::string& key : keys) node.leaves.push_back({key, true, "value", {0, 0, 5}});
  return FormatOcdbtNode(node, false, 0);
}

TEST(Ocdbt, NodesThatReferToNothing) {
  constexpr uint32_t kNode = 0x0cdb20de;
  const std::string none = std::string(9, '\xff') + '\x01', without_files("\x01\x00\x01\x01\x00k\x00", 7);
  EXPECT_THAT(NodeError(Framed(kNode, without_files + none + none + std::string(3, '\0'))), HasSubstr("refers to no node"));
  Crafted database;
  database.Add(Interior(1, 1, kNowhere));
  EXPECT_THAT(database.Error(1, 1), HasSubstr("refers to no node"));
  database.last = kNowhere;
  EXPECT_THAT(database.Error(1, 0), HasSubstr("no root"));
  EXPECT_THAT(database.Error(0, 3), HasSubstr("no root"));
  EXPECT_EQ(database.Error(0, 0), "");
}

TEST(Ocdbt, TreesThatUseANodeTwice) {
  Crafted database;
  OcdbtSpan below = database.Add(Leaf({"x", "y"}));
  for (uint8_t height = 1; height <= 20; ++height) below = database.Add(Interior(height, 2, below));
  EXPECT_THAT(database.Error(20, uint64_t{1} << 21), HasSubstr("twice"));
}

TEST(Ocdbt, MoreKeysThanTheManifestSays) {
  Crafted database;
  database.Add(Leaf({"a", "b", "c"}));
  EXPECT_EQ(database.Error(0, 3), "");
  EXPECT_THAT(database.Error(0, 2), HasSubstr("more than the 2 keys"));
  EXPECT_THAT(database.Error(0, 4), HasSubstr("3 keys in the tree"));
}

// Small files that would fill any memory: names that each share all of the one before, a long prefix before many keys, zeros compressed.
TEST(Ocdbt, WhatANodeMayExpandToIsBounded) {
  std::vector<std::string> longer(1, "a");
  while (longer.size() < 8000) longer.push_back(longer.back() + "a");
  Crafted growing;
  growing.Add(Leaf(longer));
  EXPECT_THAT(growing.Error(0, longer.size()), HasSubstr("damaged"));

  std::vector<std::string> many;
  for (int i = 0; i < 1000; ++i) many.push_back(fmt::format("{:04}", i));
  Crafted prefixed;
  OcdbtNode root;
  root.height = 1;
  root.files = {{"", "d/tree"}};
  const std::string prefix(100'000, 'p');
  root.children.push_back({prefix, prefix.size(), prefixed.Add(Leaf(many)), {1000, 0, 0}});
  prefixed.Add(FormatOcdbtNode(root, false, 0));
  EXPECT_THAT(prefixed.Error(1, 1000), HasSubstr("damaged"));

  OcdbtNode zeros;
  zeros.leaves.push_back({"k", true, std::string(100 << 20, '\0'), {0, 0, 100 << 20}});
  Crafted bomb;
  bomb.Add(FormatOcdbtNode(zeros, true, 1));
  EXPECT_THAT(bomb.Error(0, 1), HasSubstr("expands to more"));
}

// The most regular tree there is compresses best, and must still be read.
TEST(Ocdbt, ManyChunksOfOneSize) {
  TemporaryFolder folder;
  std::map<std::string, OcdbtItem> items;
  constexpr uint64_t kChunk = 32 << 20;
  for (uint64_t i = 0; i < 60'000; ++i)
    items[fmt::format("opt_state.0.mu.params.decoder.moe_layers.DeepSeekMoeBlock_0.MoeBlock_0.wi_0/c/{}/0/0/0", i)] = {false, "", "d/data",
                                                                                                                       i * kChunk, kChunk};
  OcdbtWriteOptions options;
  options.config.zstd = true;
  options.tree_file = "d/tree";
  fs::create_directories(folder.path() / "d");
  WriteOcdbtTree(folder.path(), items, options);
  EXPECT_EQ(OcdbtStore(folder.path()).Keys().size(), items.size());
}

}  // namespace
}  // namespace fathom
