// Parameters, or gradients, that are whole in memory only while their layer runs.
#pragma once

#include <cstdint>

namespace fathom {

class LayerStore {
 public:
  virtual ~LayerStore() = default;
  // Makes what belongs to the layer whole (parameters: gathered; gradients: zero), in memory that layers take turns in.
  virtual void Begin(int64_t layer) = 0;
  // Puts it away (gradients: added to the parts that ranks keep).
  virtual void End(int64_t layer) = 0;
};

}  // namespace fathom
