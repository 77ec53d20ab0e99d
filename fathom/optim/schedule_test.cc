#include "fathom/optim/schedule.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

ScheduleConfig FromFlags(const Json& flags) {
  ScheduleConfig c;
  c.type = ParseScheduleType(flags.value("lr_schedule_type", "cosine"));
  c.wsd_decay_style = ParseDecayStyle(flags.value("wsd_decay_style", "linear"));
  c.learning_rate = flags.at("learning_rate");
  c.steps = flags.value("learning_rate_schedule_steps", flags.at("steps").get<int64_t>());
  c.final_fraction = flags.value("learning_rate_final_fraction", c.final_fraction);
  c.warmup_steps_fraction = flags.value("warmup_steps_fraction", c.warmup_steps_fraction);
  c.wsd_decay_steps_fraction = flags.value("wsd_decay_steps_fraction", c.wsd_decay_steps_fraction);
  return c;
}

// Rates that MaxText 0.2.5 used, in f32.
TEST(LearningRate, AgreesWithMaxText) {
  const Json cases = ReadJsonFile(std::filesystem::path(FATHOM_TEST_DATA) / "optim/lr_schedules.json");
  ASSERT_GE(cases.size(), 8u);
  for (const Json& c : cases) {
    const ScheduleConfig config = FromFlags(c.at("flags"));
    CheckSchedule(config);
    for (size_t step = 0; step < c.at("lr").size(); ++step) {
      const double want = c.at("lr")[step];
      EXPECT_NEAR(LearningRate(config, static_cast<int64_t>(step)), want, 2e-7 * config.learning_rate)
          << c.at("name").get<std::string>() << ", step " << step;
    }
  }
}

TEST(LearningRate, OneStepAndBeyondTheEnd) {
  ScheduleConfig c;
  c.learning_rate = 2;
  c.steps = 1;
  EXPECT_EQ(LearningRate(c, 0), 2);
  EXPECT_EQ(LearningRate(c, 1), 0);
  c.type = ScheduleType::kWsd;
  EXPECT_EQ(LearningRate(c, 0), 2);
}

TEST(Schedule, NamesTheFlagThatIsWrong) {
  const auto message = [](ScheduleConfig c) -> std::string {
    try {
      CheckSchedule(c);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "";
  };
  ScheduleConfig good;
  good.steps = 10;
  EXPECT_EQ(message(good), "");
  ScheduleConfig c = good;
  c.learning_rate = -1;
  EXPECT_NE(message(c).find("learning_rate=-1"), std::string::npos);
  c = good;
  c.warmup_steps_fraction = 1.5;
  EXPECT_NE(message(c).find("warmup_steps_fraction=1.5"), std::string::npos);
  c = good;
  c.type = ScheduleType::kWsd;
  c.warmup_steps_fraction = 0.6;
  c.wsd_decay_steps_fraction = 0.6;
  EXPECT_NE(message(c).find("together"), std::string::npos);
  EXPECT_THROW(ParseScheduleType("step"), Error);
  EXPECT_THROW(ParseDecayStyle("exp"), Error);
}

}  // namespace
}  // namespace fathom
