// Where batches come from.
#pragma once

#include "fathom/base/json.h"
#include "fathom/data/batch.h"

namespace fathom {

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Overwrites *batch with the next one. False: the data has ended (and *batch is all padding).
  virtual bool Next(Batch* batch) = 0;
  // Where the next batch starts: a source restored from it goes on with the same batches, bit for bit.
  virtual Json State() const = 0;
  // Throws Error(kInput) if the state belongs to other data or other settings.
  virtual void Restore(const Json& state) = 0;
  // Back to the beginning: before every evaluation.
  virtual void Reset() = 0;
};

}  // namespace fathom
