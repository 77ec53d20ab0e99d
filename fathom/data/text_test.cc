#include "fathom/data/text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

constexpr int32_t kBos = 300, kEos = 301;

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

// A folder with `documents` short documents as JSON lines in two files.
class Corpus {
 public:
  explicit Corpus(int documents) {
    std::string files[2];
    for (int i = 0; i < documents; ++i) {
      const std::string text =
          "doc " + std::to_string(i) + " " + std::string(static_cast<size_t>(i * 37 % 90), static_cast<char>('a' + i % 26));
      files[i % 2] += "{\"text\": \"" + text + "\"}\n";
      texts_.push_back(text);
    }
    WriteFileAtomically(folder_.path() / "a.jsonl", files[0]);
    WriteFileAtomically(folder_.path() / "b.jsonl", files[1]);
  }
  std::string path() const { return folder_.path().string(); }
  const std::vector<std::string>& texts() const { return texts_; }
  const std::filesystem::path& folder() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  std::vector<std::string> texts_;
};

TextConfig SmallConfig(const std::string& path) {
  TextConfig c;
  c.stream.dataset_path = path;
  c.stream.seed = 7;
  c.stream.extent_bytes = 200;
  c.window_bytes = 1500;
  c.rows = 3;
  c.length = 32;
  c.bos_id = kBos;
  c.eos_id = kEos;
  c.token_bytes = [](int32_t) { return 1; };
  return c;
}

std::vector<Batch> Take(TextSource& source, int most) {
  std::vector<Batch> batches;
  Batch batch;
  while (static_cast<int>(batches.size()) < most && source.Next(&batch)) batches.push_back(batch);
  return batches;
}

bool Same(const Batch& a, const Batch& b) {
  return a.ids == b.ids && a.targets == b.targets && a.positions == b.positions && a.segment_ids == b.segment_ids &&
         a.weights == b.weights && a.segments == b.segments && a.text_bytes == b.text_bytes;
}

std::string MessageOf(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

// How often each pair (token, token behind it) is trained on.
using Pairs = std::map<std::pair<int32_t, int32_t>, int>;
Pairs PairsOf(const std::vector<Batch>& batches) {
  Pairs pairs;
  for (const Batch& b : batches) {
    for (size_t i = 0; i < b.ids.size(); ++i) {
      if (b.weights[i] != 0) ++pairs[{b.ids[i], b.targets[i]}];
    }
  }
  return pairs;
}

// Those that stand for a byte of text.
int64_t TextTargets(const Batch& b) {
  int64_t n = 0;
  for (size_t i = 0; i < b.ids.size(); ++i) n += b.weights[i] != 0 && b.targets[i] != kEos ? 1 : 0;
  return n;
}

TEST(TextSource, CountsTheBytesOfTargetsWithoutBosToo) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"cde\"}\n");
  TextConfig config = SmallConfig(folder.path().string());
  config.epochs = 1;
  config.bos_id = -1;
  config.token_bytes = [](int32_t id) { return id - 90; };
  TextSource source(config, Bytes);
  Batch batch;
  ASSERT_TRUE(source.Next(&batch));
  EXPECT_EQ(batch.text_bytes, 'b' + 'd' + 'e' - 3 * 90);
}

TEST(TextSource, KeepsThePositionOfABatchThatFails) {
  const Corpus corpus(60);
  TextConfig config = SmallConfig(corpus.path());
  config.stream.shuffle = false;
  WriteFileAtomically(corpus.folder() / "c.jsonl", "{\"text\": \"cut off\n");
  TextSource source(config, Bytes);
  Batch batch;
  Json before;
  EXPECT_NE(MessageOf([&] {
              for (;;) {
                before = source.State();
                source.Next(&batch);
              }
            }).find("c.jsonl"),
            std::string::npos);
  EXPECT_EQ(source.State(), before);
  source.Restore(before);
}

TEST(TextSource, GoesOnWithTheSameTokenizerOnly) {
  const Corpus corpus(20);
  TextConfig config = SmallConfig(corpus.path());
  config.tokenizer_hash = 1;
  Json state = TextSource(config, Bytes).State();
  TextSource(config, Bytes).Restore(state);
  config.tokenizer_hash = 2;
  TextSource other(config, Bytes);
  EXPECT_NE(MessageOf([&] { other.Restore(state); }).find("tokenizer_path"), std::string::npos);
  state.erase("tokenizer");  // of an older state
  other.Restore(state);
}

TEST(TextSource, AnEpochHasEveryTargetOnceAndNoneAcrossDocuments) {
  const Corpus corpus(150);
  Pairs want;
  int64_t bytes = 0;
  for (const std::string& text : corpus.texts()) {
    std::vector<int32_t> tokens = Bytes(text);
    tokens.insert(tokens.begin(), kBos);
    tokens.push_back(kEos);
    for (size_t i = 1; i < tokens.size(); ++i) ++want[{tokens[i - 1], tokens[i]}];
    bytes += static_cast<int64_t>(text.size());
  }
  for (const Packing packing : {Packing::kNone, Packing::kFirstFit, Packing::kConcatThenSplit}) {
    for (const bool shuffle : {true, false}) {
      TextConfig config = SmallConfig(corpus.path());
      config.packing = packing;
      config.stream.shuffle = shuffle;
      config.epochs = 1;
      TextSource source(config, Bytes);
      const std::vector<Batch> batches = Take(source, 100000);
      EXPECT_EQ(PairsOf(batches), want);
      int64_t got_bytes = 0;
      for (const Batch& b : batches) {
        EXPECT_EQ(b.text_bytes, TextTargets(b));
        got_bytes += b.text_bytes;
      }
      EXPECT_EQ(got_bytes, bytes);
    }
  }
}

TEST(TextSource, LayoutOfARow) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"cde\"}\n");
  TextConfig config = SmallConfig(folder.path().string());
  config.stream.shuffle = false;
  config.rows = 1;
  config.length = 8;
  config.epochs = 1;
  TextSource source(config, Bytes);
  Batch batch;
  ASSERT_TRUE(source.Next(&batch));
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{kBos, 'a', 'b', kBos, 'c', 'd', 'e', 0}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{'a', 'b', kEos, 'c', 'd', 'e', kEos, 0}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 0}));
  EXPECT_EQ(batch.segment_ids, (std::vector<int32_t>{1, 1, 1, 2, 2, 2, 2, 0}));
  EXPECT_EQ(batch.segments, (std::vector<TokenRange>{{0, 3}, {3, 7}}));
  EXPECT_EQ(batch.target_count, 7);
  EXPECT_EQ(batch.text_bytes, 5);
  EXPECT_FALSE(source.Next(&batch));
  EXPECT_FALSE(source.Next(&batch));
  EXPECT_EQ(batch.target_count, 0);
  source.Reset();
  EXPECT_TRUE(source.Next(&batch));
}

TEST(TextSource, ResumesAtEveryBatch) {
  const Corpus corpus(80);
  const TextConfig config = SmallConfig(corpus.path());
  TextSource source(config, Bytes);
  std::vector<Batch> batches;
  std::vector<std::string> states;
  Batch batch;
  for (int i = 0; i < 150; ++i) {  // more than one epoch
    states.push_back(source.State().dump());
    ASSERT_TRUE(source.Next(&batch));
    batches.push_back(batch);
  }
  EXPECT_GE(ParseJson(states.back(), "state").at("epoch").get<int64_t>(), 1);
  TextSource other(config, Bytes);
  for (size_t i = 0; i < states.size(); i += 7) {
    other.Restore(ParseJson(states[i], "state"));
    EXPECT_EQ(other.State().dump(), states[i]);
    for (size_t k = i; k < std::min(i + 5, batches.size()); ++k) {
      ASSERT_TRUE(other.Next(&batch));
      ASSERT_TRUE(Same(batch, batches[k])) << "restored before batch " << i << ", batch " << k;
    }
  }
}

TEST(TextSource, OrderDependsOnSeedAndEpochOnly) {
  const Corpus corpus(80);
  TextConfig config = SmallConfig(corpus.path());
  TextSource one(config, Bytes);
  config.threads = 4;
  TextSource same(config, Bytes);
  config.stream.seed = 8;
  TextSource other(config, Bytes);
  const auto a = Take(one, 20), b = Take(same, 20), c = Take(other, 20);
  for (size_t i = 0; i < 20; ++i) EXPECT_TRUE(Same(a[i], b[i]));
  EXPECT_FALSE(Same(a[0], c[0]));
  EXPECT_FALSE(Same(a[0], a[1]));
}

TEST(TextSource, RanksShareOneGlobalBatch) {
  const Corpus corpus(80);
  TextConfig config = SmallConfig(corpus.path());
  config.rows = 4;
  TextSource whole(config, Bytes);
  config.rows = 2;
  config.ranks = 2;
  TextSource first(config, Bytes);
  config.rank = 1;
  TextSource second(config, Bytes);
  Batch all, a, b;
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(whole.Next(&all) && first.Next(&a) && second.Next(&b));
    const auto half = all.ids.begin() + 2 * config.length;
    EXPECT_EQ(std::vector<int32_t>(all.ids.begin(), half), a.ids);
    EXPECT_EQ(std::vector<int32_t>(half, all.ids.end()), b.ids);
    EXPECT_EQ(whole.State(), first.State());
    EXPECT_EQ(whole.State(), second.State());
  }
}

int Documents(const Pairs& pairs) {
  int n = 0;
  for (const auto& [pair, count] : pairs) n += pair.first == kBos ? count : 0;
  return n;
}

TEST(TextSource, HeldOutDocumentsAreNotTrainedOn) {
  const Corpus corpus(300);
  for (const int64_t extent_bytes : {200, 1 << 20}) {  // many extents, two
    TextConfig config = SmallConfig(corpus.path());
    config.epochs = 1;
    config.stream.extent_bytes = extent_bytes;
    config.stream.held_out_fraction = 0.2;
    const auto pairs = [&](Split split) {
      config.stream.split = split;
      TextSource source(config, Bytes);
      return PairsOf(Take(source, 100000));
    };
    const Pairs train = pairs(Split::kTrain), held_out = pairs(Split::kHeldOut), all = pairs(Split::kAll);
    Pairs sum = train;
    for (const auto& [pair, n] : held_out) sum[pair] += n;
    EXPECT_EQ(sum, all);
    EXPECT_GT(Documents(held_out), 30);
    EXPECT_LT(Documents(held_out), 90);
  }
}

TEST(TextSource, OneExtentIsDividedByDocument) {
  const TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += "{\"text\": \"some words\"}\n";
  WriteFileAtomically(folder.path() / "a.jsonl", lines);
  TextConfig config = SmallConfig(folder.path().string());
  config.epochs = 1;
  config.stream.extent_bytes = 1 << 20;
  config.stream.held_out_fraction = 0.2;
  config.stream.split = Split::kHeldOut;
  TextSource source(config, Bytes);
  const int held_out = Documents(PairsOf(Take(source, 1000)));
  EXPECT_EQ(held_out, 20);
}

TEST(TextSource, PlainTextGetsEosOnlyAtTheEndOfAFile) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i) + " of the file\n";
  WriteFileAtomically(folder.path() / "a.txt", text);
  TextConfig config = SmallConfig(folder.path().string());
  config.epochs = 1;
  TextSource source(config, Bytes);
  int eos = 0, bos = 0;
  for (const auto& [pair, n] : PairsOf(Take(source, 1000))) {
    eos += pair.second == kEos ? n : 0;
    bos += pair.first == kBos ? n : 0;
  }
  EXPECT_EQ(eos, 1);
  EXPECT_GT(bos, 5);
}

TEST(TextSource, TellsWhatIsWrong) {
  const Corpus corpus(20);
  Batch batch;
  const auto first_batch = [&](const TextConfig& config, const EncodeFunction& encode) {
    return MessageOf([&] {
      TextSource source(config, encode);
      source.Next(&batch);
    });
  };
  TextConfig config = SmallConfig(corpus.path());
  config.rows = 1000;
  EXPECT_NE(first_batch(config, Bytes).find("fewer than one batch of 32000"), std::string::npos);
  config = SmallConfig(corpus.path());
  const TemporaryFolder one;
  WriteFileAtomically(one.path() / "a.txt", "one piece");
  config = SmallConfig(one.path().string());
  config.stream.held_out_fraction = 1e-9;
  config.stream.split = Split::kHeldOut;
  EXPECT_NE(first_batch(config, Bytes).find("is held out"), std::string::npos);
  config = SmallConfig(corpus.path() + "/nothing");
  EXPECT_NE(first_batch(config, Bytes).find("no file matches"), std::string::npos);
  const TemporaryFolder empty;
  WriteFileAtomically(empty.path() / "a.txt", "");
  EXPECT_NE(first_batch(SmallConfig(empty.path().string()), Bytes).find("no text"), std::string::npos);
  config = SmallConfig(corpus.path());
  EXPECT_NE(first_batch(config, [](std::string_view) -> std::vector<int32_t> { Throw(ErrorCode::kInput, "from the tokenizer"); })
                .find("jsonl, line 8: from the tokenizer"),
            std::string::npos);
}

TEST(TextSource, RefusesAnotherDataSetsState) {
  const Corpus corpus(20);
  const TextConfig config = SmallConfig(corpus.path());
  TextSource source(config, Bytes);
  const Json state = source.State();
  TextConfig longer = config;
  longer.length = 16;
  EXPECT_NE(MessageOf([&] { TextSource(longer, Bytes).Restore(state); }).find("max_target_length"), std::string::npos);
  WriteFileAtomically(corpus.folder() / "c.jsonl", "{\"text\": \"new\"}\n");
  EXPECT_NE(MessageOf([&] { TextSource(config, Bytes).Restore(state); }).find("other files"), std::string::npos);
  EXPECT_NE(MessageOf([&] { source.Restore(Json::object()); }).find("dataset_type"), std::string::npos);
}

// Of ids 0 to 9 the even ones count; a document "bad" is bad, "long" too long.
Sample EvenIds(const Document& document) {
  if (document.text == "bad") Throw(ErrorCode::kInput, "no good");
  if (document.text == "long") return {.fate = Sample::kTooLong};
  Sample sample{Bytes(document.text), {}};
  for (int32_t& id : sample.ids) {
    id -= '0';
    sample.mask.push_back(id % 2 == 0 ? 1 : 0);
  }
  return sample;
}

TextConfig MaskedConfig(const std::string& path) {
  TextConfig config = SmallConfig(path);
  config.stream.shuffle = false;
  config.packing = Packing::kNone;
  config.epochs = 1;
  config.bos_id = config.eos_id = -1;
  config.token_bytes = {};
  return config;
}

TEST(TextSource, CountsTheTargetsOfTheMaskAlone) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "a.jsonl", "{\"text\": \"1234\"}\n{\"text\": \"long\"}\n{\"text\": \"2468\"}\n");
  TextSource source(MaskedConfig(folder.path().string()), EvenIds);
  Batch batch;
  ASSERT_TRUE(source.Next(&batch));
  EXPECT_EQ(std::vector<float>(batch.weights.begin(), batch.weights.begin() + 4), (std::vector<float>{1, 0, 1, 0}));
  EXPECT_EQ(std::vector<float>(batch.weights.begin() + 32, batch.weights.begin() + 36), (std::vector<float>{1, 1, 1, 0}));
  EXPECT_EQ(batch.target_count, 5);
  EXPECT_EQ(source.counts().read, 3);
  EXPECT_EQ(source.counts().too_long, 1);
}

TEST(TextSource, BadDocumentsAreNamedOrCounted) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "a.jsonl", "{\"text\": \"1234\"}\n{\"text\": \"bad\"}\n{\"text\": \"bad\"}\n");
  TextConfig config = MaskedConfig(folder.path().string());
  Batch batch;
  EXPECT_NE(MessageOf([&] { TextSource(config, EvenIds).Next(&batch); }).find("a.jsonl, line 2: no good"), std::string::npos);
  config.skip_bad = true;
  TextSource source(config, EvenIds);
  ASSERT_TRUE(source.Next(&batch));
  EXPECT_EQ(source.counts().bad, 2);
}

}  // namespace
}  // namespace fathom
