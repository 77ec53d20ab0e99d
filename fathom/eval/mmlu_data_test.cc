#include "fathom/eval/mmlu_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/eval/mmlu_subjects.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

const char* const kHeader = "question,choice0,choice1,choice2,choice3,answer\n";

class MmluDataTest : public testing::Test {
 protected:
  MmluDataTest() {
    fs::create_directories(folder_.path() / "test");
    fs::create_directories(folder_.path() / "dev");
  }
  void Write(const char* split, const std::string& text) const {
    WriteFileAtomically(folder_.path() / split / (std::string("anatomy_") + split + ".csv"), text);
  }
  ChoiceSubject Read(int64_t examples = 0, int64_t limit = 0) const {
    return ReadMmlu({.dir = folder_.path(), .subjects = {"anatomy"}, .examples = examples, .limit = limit})[0];
  }
  void ExpectRefused(const std::string& test, const std::string& wanted) const {
    Write("test", test);
    try {
      Read(0, 1);
      FAIL() << test;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      EXPECT_NE(std::string(e.what()).find("anatomy_test.csv" + wanted), std::string::npos) << e.what();
    }
  }
  TemporaryFolder folder_;
};

TEST_F(MmluDataTest, BothLayouts) {
  for (const std::string& text :
       {std::string(kHeader) + "\"a, \nb \",None,2,3,4,3\nq,1,2,3,4,0\n", std::string("\"a, \nb \",None,2,3,4,D\nq,1,2,3,4,A\n")}) {
    Write("test", text);
    const ChoiceSubject s = Read(0, 1);
    ASSERT_EQ(s.questions.size(), 1u);
    EXPECT_EQ(s.available, 2);
    EXPECT_EQ(s.questions[0].question, "a, \nb ");
    EXPECT_EQ(s.questions[0].choices, (std::vector<std::string>{"None", "2", "3", "4"}));
    EXPECT_EQ(s.questions[0].answer, 3);
  }
}

TEST_F(MmluDataTest, BrokenFiles) {
  const std::string good = "q,1,2,3,4,0\n";
  ExpectRefused("", ": no question");
  ExpectRefused(kHeader, ": no question");
  ExpectRefused(kHeader + good + "q,1,2,3,0\n", " line 3: 5 columns");
  ExpectRefused("question,choice0,choice1,choice2,answer\nq,1,2,3,0\n", " line 1: 5 columns");
  for (const char* answer : {"E", "4", "", "AB", "-1", " A"})
    ExpectRefused(kHeader + good + "q,1,2,3,4," + answer + "\n", " line 3: the answer is");
  ExpectRefused(kHeader + good + "\"q,1,2,3,4,0\n", " line 3: a quote");
}

TEST_F(MmluDataTest, MissingFilesAndExamples) {
  EXPECT_THROW(Read(), Error);
  Write("test", "q,1,2,3,4,0\n");
  EXPECT_NO_THROW(Read());
  EXPECT_THROW(Read(1), Error);
  Write("dev", "q,1,2,3,4,0\nr,1,2,3,4,0\n");
  EXPECT_EQ(Read(1).examples.size(), 1u);
  EXPECT_THROW(Read(3), Error);
  EXPECT_THROW(ReadMmlu({.dir = folder_.path() / "none", .subjects = {"anatomy"}}), Error);
}

// A subject's own files, or those of all subjects; the same questions as from CSV.
TEST(MmluParquet, AsTheHubLeavesIt) {
  const fs::path dir = fs::path(FATHOM_TEST_DATA) / "mmlu_parquet";
  const auto subjects = ReadMmlu({.dir = dir, .subjects = {"abstract_algebra", "virology"}, .examples = 1});
  EXPECT_EQ(subjects[0].available, 3);
  EXPECT_EQ(subjects[1].available, 2);
  EXPECT_EQ(subjects[1].questions[0].choices.size(), 4u);
  const auto csv = ReadMmlu({.dir = fs::path(FATHOM_TEST_DATA) / "mmlu", .subjects = {"abstract_algebra"}, .examples = 1});
  EXPECT_EQ(subjects[0].questions[0].question, csv[0].questions[1].question);
  EXPECT_EQ(subjects[0].questions[0].choices, csv[0].questions[1].choices);
  EXPECT_EQ(subjects[0].questions[0].answer, csv[0].questions[1].answer);
  EXPECT_EQ(subjects[0].examples[0].question, csv[0].examples[0].question);
  EXPECT_THROW(ReadMmlu({.dir = dir, .subjects = {"abstract_algebra"}, .examples = 6}), Error);
  EXPECT_THROW(ReadMmlu({.dir = dir, .subjects = {"marketing"}}), Error);
}

TEST_F(MmluDataTest, BrokenParquet) {
  const fs::path good = fs::path(FATHOM_TEST_DATA) / "mmlu_parquet" / "abstract_algebra" / "test-00000-of-00001.parquet";
  const std::string bytes = ReadTextFile(good);
  fs::create_directories(folder_.path() / "anatomy");
  WriteFileAtomically(folder_.path() / "anatomy" / "test-00000-of-00001.parquet", bytes.substr(0, bytes.size() / 2));
  EXPECT_THROW(Read(), Error);
}

TEST(MmluSubjects, AllAreCountedSomewhere) {
  std::set<std::string_view> used;
  EXPECT_EQ(MmluSubjects().size(), 57u);
  EXPECT_TRUE(std::ranges::is_sorted(MmluSubjects(), {}, &MmluSubject::name));
  for (const MmluSubject& s : MmluSubjects()) {
    used.insert(s.subcategory);
    EXPECT_EQ(std::ranges::count(MmluSubcategories(), s.subcategory, &MmluSubcategory::name), 1) << s.name;
    EXPECT_EQ(std::ranges::count(MmluCategories(), CategoryOf(s.name)), 1) << s.name;
  }
  EXPECT_EQ(used.size(), 17u);
}

TEST(MmluSubjects, Choosing) {
  EXPECT_EQ(ChooseMmluSubjects({}).size(), 57u);
  EXPECT_EQ(ChooseMmluSubjects({"virology", "anatomy", "virology"}), (std::vector<std::string>{"anatomy", "virology"}));
  try {
    ChooseMmluSubjects({"anatomi"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string(e.what()).find("did you mean anatomy"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fathom
