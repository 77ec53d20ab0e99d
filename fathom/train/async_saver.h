// Checkpoints that are written while training goes on: the state of a step is copied, and a thread of its own writes the copy.
#pragma once

#include <future>
#include <map>
#include <vector>

#include "fathom/train/checkpoints.h"

namespace fathom {

class AsyncSaver {
 public:
  ~AsyncSaver();  // waits
  // Copies what `session` may change and begins to write. The one before has been waited for. Tensors of a mapped file are not copied.
  void Start(PendingSave save, TrainSession& session);
  bool running() const { return writing_.valid(); }
  bool done() const;  // a save is over, well or badly, and has not been waited for
  // Until the save is over; its step. Throws what went wrong: then nothing of it stands on disk, and what was there stays.
  int64_t Wait();

 private:
  void Copy(SavedTensor& tensor);

  std::map<const std::byte*, Tensor> copies_;  // by the memory that they are copies of; kept from save to save
  int64_t step_ = 0;
  std::future<void> writing_;
};

}  // namespace fathom
