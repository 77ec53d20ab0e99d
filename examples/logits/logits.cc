// logits DIR ID...: the five most probable next tokens after these, by a checkpoint in the Hugging Face layout.
#include <fathom/base/error.h>
#include <fathom/eval/forward.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

int main(int argc, char** argv) try {
  if (argc < 3) fathom::Throw(fathom::ErrorCode::kUsage, "usage: logits DIR ID...");
  const auto checkpoint = fathom::Checkpoint::Open(argv[1]);
  std::vector<int32_t> ids;
  for (int i = 2; i < argc; ++i) ids.push_back(std::atoi(argv[i]));

  fathom::ForwardModel model(checkpoint, fathom::DType::kF32);
  const fathom::Tensor logits = model.Logits(ids);  // [T,V] F32
  const float* last = logits.data<float>() + (logits.dim(0) - 1) * logits.dim(1);

  std::vector<int32_t> order(static_cast<size_t>(logits.dim(1)));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, std::greater(), [&](int32_t id) { return last[id]; });
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) std::printf("%d %.6f\n", order[i], last[order[i]]);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "logits: %s\n", e.what());
  return 1;
}
