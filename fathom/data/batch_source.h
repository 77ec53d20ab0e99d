// Where batches come from.
#pragma once

#include <cstdint>

#include "fathom/base/json.h"
#include "fathom/data/batch.h"

namespace fathom {

// What became of the rows of a data set that have been read so far.
struct SampleCounts {
  int64_t read = 0;            // all of them
  int64_t truncated = 0;       // cut at the length of a sequence
  int64_t too_long = 0;        // left out for their length
  int64_t without_target = 0;  // left out: nothing in them (or in what truncation left) is learned
  int64_t bad = 0;             // left out: not understood

  SampleCounts& operator+=(const SampleCounts& other) {
    read += other.read;
    truncated += other.truncated;
    too_long += other.too_long;
    without_target += other.without_target;
    bad += other.bad;
    return *this;
  }
};

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
  // Of sources that leave some out; all 0 otherwise.
  virtual SampleCounts counts() const { return {}; }
  // Of text or rows that this rank has read and tokenised so far, for itself and the others.
  virtual int64_t bytes_tokenised() const { return 0; }
};

}  // namespace fathom
