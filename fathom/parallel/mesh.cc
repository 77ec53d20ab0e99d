#include "fathom/parallel/mesh.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// As MaxText's flags name it.
const char* FlagPart(Axis axis) { return axis == Axis::kStage ? "pipeline" : AxisName(axis); }
std::string FlagOf(const char* level, Axis axis) { return fmt::format("{}_{}_parallelism", level, FlagPart(axis)); }

// Of what is known: -1 counts as 1.
int64_t Product(const MeshSizes& sizes) {
  int64_t product = 1;
  for (const AxisSize& size : sizes) product *= std::max<int64_t>(size.ici, 1) * std::max<int64_t>(size.dcn, 1);
  return product;
}

// The digits of `rank` where the last of `sizes` counts fastest.
std::vector<int64_t> Digits(int64_t rank, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> digits(sizes.size());
  for (size_t i = sizes.size(); i-- > 0; rank /= sizes[i]) digits[i] = rank % sizes[i];
  return digits;
}

// The flag that asks for ranks, for a message: "ici_tensor_parallelism=4".
std::string Asked(const MeshSizes& sizes) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].ici > 1) return fmt::format("{}={}", FlagOf("ici", kAxes[i]), sizes[i].ici);
    if (sizes[i].dcn > 1) return fmt::format("{}={}", FlagOf("dcn", kAxes[i]), sizes[i].dcn);
  }
  return FlagOf("ici", Axis::kData) + "=1";
}

// The ranks that the other flags leave; 1 where they do not divide them, which ReadMesh refuses.
int64_t Left(int ranks, const MeshSizes& sizes) {
  const int64_t others = Product(sizes);
  return ranks % others == 0 ? ranks / others : 1;
}

// dcn's default -1 is one, as in MaxText where there is one slice.
void FillAxes(const RunConfig& config, int ranks, MeshSizes& sizes) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].dcn == -1 && !config.Given(FlagOf("dcn", kAxes[i]))) sizes[i].dcn = 1;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].ici == -1) sizes[i].ici = Left(ranks, sizes);
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].dcn == -1) sizes[i].dcn = Left(ranks, sizes);
  }
}

// "2, 4", of those up to so many; "1" if there is no other.
std::string Fitting(int64_t most, const std::function<bool(int64_t)>& fits) {
  std::vector<int64_t> numbers;
  for (int64_t n = 2; n <= most; ++n) {
    if (fits(n)) numbers.push_back(n);
  }
  return numbers.empty() ? "1" : fmt::format("{}", fmt::join(numbers, ", "));
}

}  // namespace

const char* AxisName(Axis axis) {
  constexpr std::array kNames = {"stage", "data", "fsdp", "expert", "context", "tensor"};
  return kNames[static_cast<size_t>(axis)];
}

Mesh::Mesh(const Comm& world, const MeshSizes& sizes) : world_(world) {
  constexpr std::array kLabels = {"communication along stage",  "communication along data",    "communication along fsdp",
                                  "communication along expert", "communication along context", "communication along tensor"};
  FATHOM_CHECK(Product(sizes) == world.size(), "{} ranks", world.size());
  std::vector<int64_t> counts;
  for (const AxisSize& size : sizes) counts.push_back(size.dcn);
  for (const AxisSize& size : sizes) counts.push_back(size.ici);
  const std::vector<int64_t> mine = Digits(world.rank(), counts);
  std::array<std::vector<int>, kAxes.size()> groups;
  for (int r = 0; r < world.size(); ++r) {
    const std::vector<int64_t> place = Digits(r, counts);
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      bool differs = false;  // on another axis
      for (size_t i = 0; i < counts.size(); ++i) differs |= i % sizes.size() != axis && place[i] != mine[i];
      if (!differs) groups[axis].push_back(r);
    }
  }
  for (size_t axis = 0; axis < sizes.size(); ++axis) comms_[axis] = world.Part(groups[axis], kLabels[axis]);
}

void Mesh::SumOverRows(std::span<double> x) const {
  for (const Axis axis : {Axis::kData, Axis::kFsdp, Axis::kExpert}) comm(axis).AllSum(x);
}

namespace {
// Ranks along tensor have the same tokens.
constexpr std::array kTokenAxes = {Axis::kStage, Axis::kData, Axis::kFsdp, Axis::kExpert, Axis::kContext};
}  // namespace

void Mesh::SumOverTokens(std::span<double> x) const {
  for (const Axis axis : kTokenAxes) comm(axis).AllSum(x);
}
void Mesh::SumOverTokens(std::span<int64_t> x) const {
  for (const Axis axis : kTokenAxes) comm(axis).AllSum(x);
}
void Mesh::MaxOverTokens(std::span<double> x) const {
  for (const Axis axis : kTokenAxes) comm(axis).AllMax(x);
}
void Mesh::MaxOverTokens(std::span<float> x) const {
  for (const Axis axis : kTokenAxes) comm(axis).AllMax(x);
}

std::vector<std::string> MeshFlags() {
  std::vector<std::string> flags;
  for (const char* level : {"ici", "dcn"}) {
    for (const Axis axis : kAxes) flags.push_back(FlagOf(level, axis));
  }
  return flags;
}

namespace {

MeshSizes Flagged(const RunConfig& config) {
  MeshSizes sizes;
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = {static_cast<int64_t>(config.Float(FlagOf("ici", kAxes[i]))), static_cast<int64_t>(config.Float(FlagOf("dcn", kAxes[i])))};
  }
  return sizes;
}

}  // namespace

int64_t AskedRanks(const RunConfig& config) { return Product(Flagged(config)); }

MeshSizes ReadMesh(const RunConfig& config, int ranks) {
  MeshSizes sizes = Flagged(config);
  FillAxes(config, ranks, sizes);
  const int64_t asked = Product(sizes);
  if (asked == ranks) return sizes;
  if (ranks == 1) {
    Throw(ErrorCode::kUsage, "{}: the mesh has {} ranks and this is 1 process: start it with mpirun -np {}, or leave the flag out",
          Asked(sizes), asked, asked);
  }
  Throw(ErrorCode::kUsage, "{}: the mesh has {} ranks and {} were started: all axes together have to have {}", Asked(sizes), asked, ranks,
        ranks);
}

namespace {

struct Divided {
  Axis axis;
  int64_t size;
  const char* what;
  int64_t each = 1;  // every rank takes a multiple of so many
};

std::vector<Divided> DividedSizes(const ModelConfig& c, int64_t length) {
  std::vector<Divided> sizes = {{Axis::kExpert, c.n_routed_experts, "experts"},
                                {Axis::kTensor, c.num_attention_heads, "heads"},
                                {Axis::kTensor, c.moe_intermediate_size, "columns of an expert (moe_intermediate_size)"}};
  if (c.first_k_dense_replace > 0) sizes.push_back({Axis::kTensor, c.intermediate_size, "columns of an MLP (intermediate_size)"});
  if (length > 0) sizes.push_back({Axis::kContext, length, "tokens, twice", 2});
  return sizes;
}

}  // namespace

std::string MeshFlag(const RunConfig& config, Axis axis) {
  const std::string ici = FlagOf("ici", axis);
  return config.Float(ici) == 1 ? FlagOf("dcn", axis) : ici;
}

void CheckMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model, int64_t length) {
  const int ranks = mesh.world().size();
  const auto refuse = [&](Axis axis, const std::string& why, const std::function<bool(int64_t)>& fits) {
    Throw(ErrorCode::kUsage, "{}={}: {}; up to {} ranks would do: {}", MeshFlag(config, axis), mesh.size(axis), why, ranks,
          Fitting(ranks, fits));
  };
  for (const Divided& d : DividedSizes(model, length)) {
    const auto fits = [&](int64_t n) { return d.size % (n * d.each) == 0; };
    if (mesh.size(d.axis) > 1 && !fits(mesh.size(d.axis))) refuse(d.axis, fmt::format("has to divide {} {}", d.size, d.what), fits);
  }
  const auto stages = [&](int64_t n) { return n <= model.num_hidden_layers; };
  if (!stages(mesh.size(Axis::kStage))) refuse(Axis::kStage, fmt::format("there are {} layers", model.num_hidden_layers), stages);
}

}  // namespace fathom
