// The three ways to score against whole sequences through the model, and runs that were cut short.
#include "fathom/eval/choice_eval.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/eval/forward.h"
#include "fathom/eval/mmlu_data.h"
#include "fathom/eval/samples_file.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVocab = 610;

// The test tokenizer with tokens for " B" and " D", which it lacks.
void SaveTokenizer(const fs::path& dir) {
  const fs::path from = fs::path(FATHOM_TEST_DATA) / "tokenizer" / "deepseek";
  Json json = ReadJsonFile(from / "tokenizer.json");
  Json& model = json["model"];
  const bool pairs = model["merges"].front().is_array();
  for (const std::string letter : {"B", "D"}) {
    model["vocab"]["\u0120" + letter] = kVocab - (letter == "B" ? 2 : 1);
    model["merges"].push_back(pairs ? Json{"\u0120", letter} : Json("\u0120 " + letter));
  }
  WriteFileAtomically(dir / "tokenizer.json", json.dump());
  fs::copy_file(from / "tokenizer_config.json", dir / "tokenizer_config.json");
}

void SaveModel(const fs::path& dir) {
  const ModelConfig config = TinyConfig(ModelFamily::kV3, kVocab);
  DecoderParams params = InitParams(config, 5, DType::kF32, false);
  std::vector<NamedTensor> tensors;
  for (const NamedWeight& w : ListParams(params)) tensors.push_back({w.spec->name, w.weight->value.view()});
  WriteModelFiles(dir, ModelConfigToJson(config), tensors, SaveOptions().max_shard_size);
}

class ChoiceEvalTest : public testing::Test {
 protected:
  ChoiceEvalTest() : checkpoint_(Made(folder_.path())), tokenizer_(Tokenizer::Load(folder_.path())) {
    SetThreads(1);
    run_.identity = {{"model", "tiny"}};
    run_.samples_path = (folder_.path() / "samples.jsonl").string();
  }
  ~ChoiceEvalTest() override { SetThreads(0); }
  static Checkpoint Made(const fs::path& dir) {
    SaveModel(dir);
    SaveTokenizer(dir);
    return Checkpoint::Open(dir);
  }
  static std::vector<ChoiceSubject> Subjects(int64_t examples) {
    return ReadMmlu({.dir = fs::path(FATHOM_TEST_DATA) / "mmlu",
                     .subjects = {"abstract_algebra", "nutrition", "world_religions"},
                     .examples = examples});
  }
  // Enough questions for ten units.
  static std::vector<ChoiceSubject> ManyQuestions() {
    ChoiceSubject s{.name = "many"};
    for (int i = 0; i < 150; ++i) s.questions.push_back({"What is " + std::to_string(i * 7 % 31) + "?", {"a", "b b", "c"}, i % 3});
    s.available = 150;
    return {s};
  }
  std::vector<Json> Evaluate(const std::vector<ChoiceSubject>& subjects) {
    ChoiceEvaluation evaluation(subjects, tokenizer_, run_);
    computed_ = evaluation.questions() - evaluation.done();
    const bool any = evaluation.Capacity() > 0;
    const MappedModel model(Checkpoint(checkpoint_), DType::kF32, any ? evaluation.Capacity() : 1);
    scores_ = evaluation.Run(any ? &model : nullptr, false);
    return Rows();
  }
  std::vector<Json> Rows() const {
    std::vector<Json> rows;
    const std::string text = ReadTextFile(run_.samples_path);
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
      rows.push_back(ParseJson(std::string_view(text).substr(begin, end - begin), "samples"));
    return rows;
  }
  void ExpectRefused(const std::vector<ChoiceSubject>& subjects, const std::string& wanted) {
    const std::string before = ReadTextFile(run_.samples_path);
    try {
      Evaluate(subjects);
      FAIL() << wanted;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      EXPECT_NE(std::string(e.what()).find(run_.samples_path + wanted), std::string::npos) << e.what();
    }
    EXPECT_EQ(ReadTextFile(run_.samples_path), before);
  }
  std::vector<int32_t> Encode(const std::string& text) const { return tokenizer_.Encode(text, {.add_bos = true}); }

  TemporaryFolder folder_;
  Checkpoint checkpoint_;
  Tokenizer tokenizer_;
  ChoiceRun run_;
  std::vector<SubjectScore> scores_;
  int64_t computed_ = 0;
};

TEST_F(ChoiceEvalTest, LettersHaveTheLogitsOfTheWholePrompt) {
  const auto subjects = Subjects(5);
  const auto rows = Evaluate(subjects);
  ForwardModel model(checkpoint_, DType::kF32);
  ASSERT_EQ(rows.size(), 9u);
  int64_t correct = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const ChoiceSubject& s = subjects[i / 3];
    const ChoiceQuestion& q = s.questions[i % 3];
    const auto ids = Encode(LetterPrompt(s, q, PromptStyle::kOriginal));
    const Tensor logits = model.Logits(ids);
    std::string best = "A";
    double most = -1e9;
    for (const std::string letter : {"A", "B", "C", "D"}) {
      const auto token = tokenizer_.Encode(" " + letter);
      ASSERT_EQ(token.size(), 1u);
      const double found = rows[i]["logits"][letter].get<double>();
      EXPECT_TRUE(std::abs(found - logits.data<float>()[(logits.dim(0) - 1) * kVocab + token[0]]) <= 2e-5) << rows[i];
      if (found > most) {
        most = found;
        best = letter;
      }
    }
    EXPECT_EQ(rows[i]["subject"], s.name);
    EXPECT_EQ(rows[i]["index"], i % 3);
    EXPECT_EQ(rows[i]["prediction"], best);
    EXPECT_EQ(rows[i]["answer"], ChoiceLetter(q.answer));
    EXPECT_EQ(rows[i]["correct"], best == ChoiceLetter(q.answer));
    correct += best == ChoiceLetter(q.answer) ? 1 : 0;
  }
  EXPECT_EQ(scores_[0].correct + scores_[1].correct + scores_[2].correct, correct);
}

TEST_F(ChoiceEvalTest, ContinuationsHaveTheLikelihoodOfTheWholeText) {
  run_.settings.scoring = ChoiceScoring::kContinuations;
  const auto subjects = Subjects(1);
  const auto rows = Evaluate(subjects);
  ForwardModel model(checkpoint_, DType::kF32);
  ASSERT_EQ(rows.size(), 9u);
  for (size_t i = 0; i < rows.size(); i += 2) {
    const ChoiceQuestion& q = subjects[i / 3].questions[i % 3];
    const std::string prompt = ContinuationPrompt(subjects[i / 3], q);
    const auto shown = std::ssize(Encode(prompt));
    double best = -1e9;
    size_t best_choice = 0;
    for (size_t c = 0; c < q.choices.size(); ++c) {
      const auto ids = Encode(prompt + " " + q.choices[c]);
      const Tensor logits = model.Logits(ids);
      double sum = 0;
      for (int64_t at = shown; at < std::ssize(ids); ++at) {
        const float* row = logits.data<float>() + (at - 1) * kVocab;
        double total = 0;
        for (int64_t v = 0; v < kVocab; ++v) total += std::exp(static_cast<double>(row[v]));
        sum += row[ids[static_cast<size_t>(at)]] - std::log(total);
      }
      EXPECT_TRUE(std::abs(rows[i]["log_likelihoods"][c].get<double>() - sum) <= 1e-4) << rows[i] << " " << sum;
      const double normed = sum / static_cast<double>(q.choices[c].size());
      if (normed > best) {
        best = normed;
        best_choice = c;
      }
    }
    EXPECT_EQ(rows[i]["prediction_norm"], ChoiceLetter(static_cast<int64_t>(best_choice)));
  }
  EXPECT_TRUE(scores_[0].correct_norm.has_value());
}

TEST_F(ChoiceEvalTest, MaxTextsExpression) {
  EXPECT_EQ(FindAnswerLetter("...\nAnswer: B\nAnswer: C"), "B");
  EXPECT_EQ(FindAnswerLetter("Answer:\n\u00a0 because"), "b");
  EXPECT_EQ(FindAnswerLetter("ANSWER:D"), "D");
  EXPECT_EQ(FindAnswerLetter("the ANSWER IScat"), "c");
  EXPECT_EQ(FindAnswerLetter("Answer: E. The answer is A"), "A");
  EXPECT_EQ(FindAnswerLetter("Answer:"), "");
  EXPECT_EQ(FindAnswerLetter("Answer is A"), "");
}

TEST_F(ChoiceEvalTest, GeneratedAnswersEndAtTheFirstLetter) {
  run_.settings.scoring = ChoiceScoring::kGenerated;
  run_.settings.prompt_template = kMaxTextTemplate;
  run_.settings.longest_sequence = 1024;
  const auto subjects = Subjects(0);
  const auto rows = Evaluate(subjects);
  ASSERT_EQ(rows.size(), 9u);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string prompt = TemplatePrompt(kMaxTextTemplate, subjects[i / 3], subjects[i / 3].questions[i % 3]);
    const std::string text = rows[i]["text"].get<std::string>(), letter = FindAnswerLetter(prompt + text);
    EXPECT_EQ(rows[i]["prediction"], letter.empty() ? Json() : Json(letter));
    EXPECT_EQ(rows[i]["correct"], letter == rows[i]["answer"].get<std::string>());
    if (letter.empty() || text.size() <= 20) continue;
    EXPECT_EQ(FindAnswerLetter(prompt + text.substr(0, text.size() - 20)), "") << text;
  }
  run_.settings.longest_sequence = 40;
  run_.samples_path = (folder_.path() / "other.jsonl").string();
  EXPECT_THROW(Evaluate(subjects), Error);
  run_.settings.longest_prompt = 32;
  EXPECT_EQ(Evaluate(subjects).size(), 9u);
}

TEST_F(ChoiceEvalTest, AKilledRunGoesOn) {
  const auto subjects = ManyQuestions();
  const auto rows = Evaluate(subjects);
  const auto scores = scores_;
  const std::string whole = ReadTextFile(run_.samples_path);
  EXPECT_EQ(computed_, 150);
  size_t line = 0;
  for (int i = 0; i < 100; ++i) line = whole.find('\n', line) + 1;
  for (const size_t kept : {whole.size(), line + 17, size_t{0}}) {  // all, six units and a part of the next and of a row, nothing
    WriteFileAtomically(run_.samples_path, whole.substr(0, kept));
    EXPECT_EQ(Evaluate(subjects), rows);
    EXPECT_EQ(computed_, kept == whole.size() ? 0 : kept == 0 ? 150 : 54);
    EXPECT_EQ(ReadTextFile(run_.samples_path), whole);
    EXPECT_EQ(scores_[0].correct, scores[0].correct);
    EXPECT_EQ(scores_[0].asked, 150);
  }
}

TEST_F(ChoiceEvalTest, AnotherRunsRowsAreRefused) {
  Evaluate(Subjects(1));
  ExpectRefused(Subjects(0), " line 1: a row of another run");
  auto other = Subjects(1);
  other[1].questions[1].answer ^= 1;
  ExpectRefused(other, " line 5: a row of another run");
  other = Subjects(1);
  other[2].questions.resize(2);
  ExpectRefused(other, " line 9: a row of another run");
  run_.identity = {{"model", "another"}};
  ExpectRefused(Subjects(1), " line 1: a row of another run");
  Json changed = Rows()[0];
  changed["correct"] = !changed["correct"].get<bool>();
  WriteFileAtomically(run_.samples_path, changed.dump() + "\n");
  run_.identity = {{"model", "tiny"}};
  ExpectRefused(Subjects(1), " line 1: not as it was written");
  changed["correct"] = !changed["correct"].get<bool>();
  const std::string first = changed.dump() + "\n";
  run_.identity = {{"model", "tiny"}};
  WriteFileAtomically(run_.samples_path, first + first);
  ExpectRefused(Subjects(1), " line 2: a question for the second time");
  WriteFileAtomically(run_.samples_path, first + "{}\n");
  ExpectRefused(Subjects(1), " line 2: no row");
}

TEST(ReadSamples, OnlyTheBeginningOfARowMayLackItsEnd) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "rows.jsonl").string();
  const auto hash = [](const QuestionKey&) { return std::string(); };
  for (const std::string cut : {"", "{", "{\"answer\":\"A\",\"corr"}) {
    WriteFileAtomically(path, cut);
    EXPECT_TRUE(ReadSamples(path, hash).empty()) << cut;
  }
  WriteFileAtomically(path, "{\"architectures\":[\"DeepseekV3ForCausalLM\"]}");
  EXPECT_THROW(ReadSamples(path, hash), Error) << "somebody's file";
}

TEST_F(ChoiceEvalTest, PromptsAreWritten) {
  run_.prompts_path = (folder_.path() / "prompts.jsonl").string();
  const auto subjects = Subjects(2);
  Evaluate(subjects);
  const std::string text = ReadTextFile(run_.prompts_path);
  EXPECT_EQ(std::ranges::count(text, '\n'), 9);
  const Json row = ParseJson(std::string_view(text).substr(0, text.find('\n')), "prompts");
  EXPECT_EQ(row["prompt"], LetterPrompt(subjects[0], subjects[0].questions[0], PromptStyle::kOriginal));
}

TEST_F(ChoiceEvalTest, LettersThatAreCutDifferently) {
  const Tokenizer bare = Tokenizer::Load(fs::path(FATHOM_TEST_DATA) / "tokenizer" / "deepseek");  // has a token for " A", none for " B"
  const auto subjects = Subjects(0);
  EXPECT_THROW(ChoiceEvaluation(subjects, bare, run_), Error);
}

// " A" and " B" as a blank and a letter: what follows the blank decides.
TEST_F(ChoiceEvalTest, LettersOfTwoTokens) {
  Json json = ReadJsonFile(folder_.path() / "tokenizer.json");
  std::erase_if(json["model"]["merges"].get_ref<Json::array_t&>(), [](const Json& merge) {
    const std::string text = merge.is_array() ? merge[0].get<std::string>() + " " + merge[1].get<std::string>() : merge.get<std::string>();
    return text.size() == 4 && text.starts_with("\u0120 ") && text[3] >= 'A' && text[3] <= 'D';
  });
  WriteFileAtomically(folder_.path() / "tokenizer.json", json.dump());
  tokenizer_ = Tokenizer::Load(folder_.path());
  const auto subjects = Subjects(1);
  const auto rows = Evaluate(subjects);
  ForwardModel model(checkpoint_, DType::kF32);
  const std::string prompt = LetterPrompt(subjects[0], subjects[0].questions[0], PromptStyle::kOriginal);
  const auto with_a = Encode(prompt + " A"), with_b = Encode(prompt + " B");
  ASSERT_EQ(std::ssize(with_a), std::ssize(Encode(prompt)) + 2);
  const Tensor logits = model.Logits(std::span(with_a).first(with_a.size() - 1));
  const float* last = logits.data<float>() + (logits.dim(0) - 1) * kVocab;
  EXPECT_TRUE(std::abs(rows[0]["logits"]["A"].get<double>() - last[with_a.back()]) <= 2e-5) << rows[0];
  EXPECT_TRUE(std::abs(rows[0]["logits"]["B"].get<double>() - last[with_b.back()]) <= 2e-5) << rows[0];
}

// The second rank's prompts are empty, and it needs as long a sequence as the first, whose tokens are everybody's.
TEST_F(ChoiceEvalTest, OneRankOfAMachineTokenisesForAll) {
  const auto subjects = Subjects(2);
  for (const ChoiceScoring scoring : {ChoiceScoring::kLetters, ChoiceScoring::kContinuations, ChoiceScoring::kGenerated}) {
    ChoiceSettings settings;
    settings.scoring = scoring;
    settings.prompt_template = "{question}";
    settings.longest_prompt = 64;
    settings.longest_sequence = 96;
    std::vector<AskedSubject> asked(2, Ask(subjects[0], settings));
    for (std::string& prompt : asked[1].prompts) prompt.clear();
    const int64_t wanted = MakeChoiceScorer(settings, tokenizer_)->Add(asked[0]);
    RunRanks(2, [&](const Comm& world) {
      EXPECT_EQ(MakeChoiceScorer(settings, tokenizer_, world)->Add(asked[static_cast<size_t>(world.rank())]), wanted);
    });
  }
}

}  // namespace
}  // namespace fathom
