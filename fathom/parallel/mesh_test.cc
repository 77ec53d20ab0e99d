#include "fathom/parallel/mesh.h"

#include <gmock/gmock.h>

#include "fathom/parallel/test_threads.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;

RunConfig Flags(std::vector<std::string> words) { return RunConfig::Resolve(words); }

std::string Refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    return e.what();
  }
  return "nothing was thrown";
}

AxisSize Of(const MeshSizes& sizes, Axis axis) { return sizes[static_cast<size_t>(axis)]; }

TEST(Mesh, FsdpTakesEveryRankUnlessTheFlagsSayOtherwise) {
  EXPECT_EQ(Of(ReadMesh(Flags({}), 4), Axis::kFsdp).all(), 4);
  EXPECT_EQ(Of(ReadMesh(Flags({"ici_data_parallelism=2"}), 6), Axis::kFsdp).all(), 3);
  EXPECT_EQ(Of(ReadMesh(Flags({"ici_fsdp_parallelism=1", "ici_expert_parallelism=-1", "dcn_data_parallelism=2"}), 8), Axis::kExpert).all(),
            4);
  EXPECT_EQ(Of(ReadMesh(Flags({"ici_fsdp_parallelism=2", "dcn_data_parallelism=1", "dcn_pipeline_parallelism=-1"}), 6), Axis::kStage).dcn,
            3);
}

TEST(Mesh, RefusesWhatDoesNotMultiplyToTheRanks) {
  const auto of = [](std::vector<std::string> words, int ranks) {
    words.push_back("ici_fsdp_parallelism=1");
    return Refusal([&] { ReadMesh(Flags(words), ranks); });
  };
  EXPECT_THAT(of({"ici_tensor_parallelism=4"}, 2), testing::AllOf(HasSubstr("ici_tensor_parallelism=4"), HasSubstr("2 were started")));
  EXPECT_THAT(of({"ici_data_parallelism=2"}, 4), testing::AllOf(HasSubstr("ici_data_parallelism=2"), HasSubstr("4 were started")));
  EXPECT_THAT(of({"dcn_expert_parallelism=4"}, 1), testing::AllOf(HasSubstr("dcn_expert_parallelism=4"), HasSubstr("this is 1 process")));
  EXPECT_THAT(Refusal([] { ReadMesh(Flags({"ici_data_parallelism=2"}), 3); }), HasSubstr("ici_data_parallelism=2: "));
}

// Every rank's neighbours along each axis, from the numbers that its groups sum.
TEST(Mesh, GroupsAreTheRanksThatDifferOnOneAxis) {
  RunRanks(8, [](const Comm& world) {
    const Mesh mesh(world, ReadMesh(Flags({"ici_fsdp_parallelism=2", "ici_tensor_parallelism=2", "dcn_data_parallelism=2"}), 8));
    EXPECT_EQ(mesh.rank(Axis::kData), world.rank() / 4);
    EXPECT_EQ(mesh.rank(Axis::kFsdp), world.rank() / 2 % 2);
    EXPECT_EQ(mesh.rank(Axis::kTensor), world.rank() % 2);
    EXPECT_EQ(mesh.row_ranks(), 4);
    EXPECT_EQ(mesh.row_rank(), world.rank() / 2);
    int64_t sum = world.rank();
    mesh.comm(Axis::kFsdp).AllSum(std::span(&sum, 1));
    EXPECT_EQ(sum, 2 * (world.rank() & ~2) + 2);
    EXPECT_EQ(mesh.size(Axis::kExpert), 1);
  });
}

TEST(Mesh, NamesEveryNumberThatWouldDo) {
  ModelConfig model;
  model.n_routed_experts = 16;
  model.num_attention_heads = 4;
  model.moe_intermediate_size = 32;
  model.num_hidden_layers = 3;
  const auto of = [&](const std::string& flag, int ranks) {
    std::string message;
    RunRanks(ranks, [&](const Comm& world) {
      const RunConfig config = Flags({"ici_fsdp_parallelism=1", flag});
      const Mesh mesh(world, ReadMesh(config, ranks));
      const std::string why = Refusal([&] { CheckMesh(config, mesh, model, 48); });
      if (world.rank() == 0) message = why;
    });
    return message;
  };
  EXPECT_THAT(of("ici_expert_parallelism=3", 3),
              testing::AllOf(HasSubstr("ici_expert_parallelism=3"), HasSubstr("16 experts"), HasSubstr(": 2")));
  EXPECT_THAT(of("ici_tensor_parallelism=3", 3), HasSubstr("4 heads"));
  EXPECT_THAT(of("ici_context_parallelism=5", 5), testing::AllOf(HasSubstr("48 tokens"), HasSubstr("2, 3, 4")));
  EXPECT_THAT(of("dcn_pipeline_parallelism=5", 5), testing::AllOf(HasSubstr("dcn_pipeline_parallelism=5"), HasSubstr("2, 3")));
  EXPECT_EQ(of("ici_tensor_parallelism=2", 2), "nothing was thrown");
  model.num_attention_heads = 3;
  EXPECT_THAT(of("ici_tensor_parallelism=2", 2), testing::EndsWith("would do: 1"));
}

}  // namespace
}  // namespace fathom
