#include "fathom/infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// A comparison never takes a NaN, so the token that is taken looks sound beside it.
TEST(Sampler, ALogitThatIsNotFiniteIsAnError) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const char* strategy : {"greedy", "weighted", "topk", "nucleus", "composite"}) {
    SamplingOptions options;
    options.rule = {.strategy = ParseSamplingStrategy(strategy), .top_k = 2, .top_p = 0.9};
    Sampler sampler(options, 5);
    std::vector<float> logits = {1, 2, 3, 4, 5};
    EXPECT_GE(sampler.Sample(logits, 0), 0) << strategy;
    for (const float broken : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      logits[1] = broken;
      try {
        sampler.Sample(logits, 0);
        ADD_FAILURE() << strategy << " takes " << broken;
      } catch (const Error& e) {
        EXPECT_THAT(e.what(), testing::HasSubstr("token 1 has"));
      }
    }
  }
}

}  // namespace
}  // namespace fathom
