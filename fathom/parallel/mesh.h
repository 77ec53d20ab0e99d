// The ranks of a job as a grid: MaxText's axes, and this rank's place on each.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/config/run_config.h"
#include "fathom/parallel/comm.h"

namespace fathom {

// What the ranks along an axis divide among themselves (docs/ranks.md).
enum class Axis {
  kStage,    // layers; MaxText's flags say pipeline
  kData,     // rows of the batch
  kFsdp,     // rows of the batch, and the parameters
  kExpert,   // rows of the batch, and the experts
  kContext,  // tokens of a sequence
  kTensor,   // heads and widths
};
inline constexpr std::array kAxes = {Axis::kStage, Axis::kData, Axis::kFsdp, Axis::kExpert, Axis::kContext, Axis::kTensor};

// As metrics name it: "stage".
const char* AxisName(Axis axis);

// Ranks along each axis, inside a node (ici) and across nodes (dcn), in the order of kAxes.
struct AxisSize {
  int64_t ici = 1, dcn = 1;
  int64_t all() const { return ici * dcn; }
};
using MeshSizes = std::array<AxisSize, kAxes.size()>;

class Mesh {
 public:
  Mesh() = default;                                 // one rank
  Mesh(const Comm& world, const MeshSizes& sizes);  // sizes multiply to the ranks of the world

  int size(Axis axis) const { return comm(axis).size(); }
  int rank(Axis axis) const { return comm(axis).rank(); }
  // Ranks that differ from this one only in their place on the axis.
  const Comm& comm(Axis axis) const { return comms_[static_cast<size_t>(axis)]; }
  const Comm& world() const { return world_; }
  bool is_first() const { return world_.rank() == 0; }

  // Sums over the ranks that have other rows of the batch (row_ranks()), and over those that have other tokens or layers.
  void SumOverRows(std::span<double> x) const;
  void SumOverTokens(std::span<double> x) const;
  void SumOverTokens(std::span<int64_t> x) const;
  void MaxOverTokens(std::span<double> x) const;
  void MaxOverTokens(std::span<float> x) const;

  // The batch's rows are divided over these ranks, of which this is number row_rank().
  int64_t row_ranks() const { return int64_t{size(Axis::kData)} * size(Axis::kFsdp) * size(Axis::kExpert); }
  int64_t row_rank() const {
    return (int64_t{rank(Axis::kData)} * size(Axis::kFsdp) + rank(Axis::kFsdp)) * size(Axis::kExpert) + rank(Axis::kExpert);
  }

 private:
  Comm world_;
  std::array<Comm, kAxes.size()> comms_;
};

// The flags that ReadMesh reads.
std::vector<std::string> MeshFlags();

// MaxText's ici_*_parallelism and dcn_*_parallelism flags for so many ranks; -1 takes what is left. Throws Error(kUsage) with the flag, its
// number and that of the ranks if they do not multiply to them.
MeshSizes ReadMesh(const RunConfig& config, int ranks);
// The ranks that the flags ask for, where -1 counts as one.
int64_t AskedRanks(const RunConfig& config);

// The flag that gives this axis its ranks: "dcn_data_parallelism".
std::string MeshFlag(const RunConfig& config, Axis axis);

// Throws Error(kUsage) with the flag, its number, the size that it has to divide and every number up to the ranks that would do unless the
// model can be divided so. length: tokens of a sequence; 0: none are divided.
void CheckMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model, int64_t length);

}  // namespace fathom
