#include "fathom/optim/name_mask.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

const std::vector<std::string>& Names() {
  static const std::vector<std::string> names = {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                                                 "model.layers.0.self_attn.indexer.wk.weight", "model.layers.1.mlp.gate.weight",
                                                 "model.layers.1.mlp.gate.e_score_correction_bias"};
  return names;
}

std::string MessageOf(const std::vector<std::string>& patterns) {
  try {
    MatchNames("adamw_mask", patterns, Names());
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    return e.what();
  }
  return "";
}

TEST(MatchNames, SearchesDottedAndSlashedNames) {
  EXPECT_EQ(MatchNames("f", {}, Names()), (std::vector<bool>{false, false, false, false, false}));
  EXPECT_EQ(MatchNames("f", {".*indexer.*"}, Names()), (std::vector<bool>{false, false, true, false, false}));
  EXPECT_EQ(MatchNames("f", {"norm", "gate"}, Names()), (std::vector<bool>{false, true, false, true, true}));
  EXPECT_EQ(MatchNames("f", {"^model/layers/1/"}, Names()), (std::vector<bool>{false, false, false, true, true}));
  EXPECT_EQ(MatchNames("f", {"layers\\.0\\..*weight$"}, Names()), (std::vector<bool>{false, true, true, false, false}));
}

TEST(MatchNames, AMaskWithoutEffectIsAnError) {
  const std::string message = MessageOf({"indexr"});
  EXPECT_NE(message.find("adamw_mask: \"indexr\" matches no parameter"), std::string::npos) << message;
  EXPECT_NE(message.find("near: model.layers.0.self_attn.indexer.wk.weight"), std::string::npos) << message;
  EXPECT_NE(MessageOf({"norm", "(unclosed"}).find("(unclosed"), std::string::npos);
}

}  // namespace
}  // namespace fathom
