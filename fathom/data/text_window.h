// Some documents of a data set, tokenised and packed into rows: what TextSource prepares at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fathom/data/batch.h"
#include "fathom/data/batch_source.h"
#include "fathom/data/document_stream.h"
#include "fathom/data/packer.h"
#include "fathom/parallel/host.h"

namespace fathom {

struct WindowFacts {
  DocumentPosition start, next;
  SampleCounts counts;
  int64_t text_bytes = 0;  // that were read
  int64_t targets = 0;
  bool ends_epoch = false;
  bool ends_data = false;  // nothing comes after it
};

// While it is made.
struct WindowDraft {
  WindowFacts facts;
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;          // [tokens] of the targets; empty: all are counted
  std::vector<int64_t> bytes_before;  // [tokens + 1] of text that tokens [0, i) stand for, BOS and EOS for none; empty: not counted
  PackedRows packed;
  std::vector<int64_t> order;  // in which the rows are used
};

// In one piece, which several ranks of a machine may see.
class TextWindow {
 public:
  // shared: FromFirst will give it to others. Throws Error(kResource).
  static std::unique_ptr<TextWindow> Make(const WindowDraft& draft, bool shared);
  // What `take` gives on the first rank of a machine's, on all of them; null: nothing. Collective; throws as `take` does there.
  static std::unique_ptr<TextWindow> FromFirst(const Comm& host, const std::function<std::unique_ptr<TextWindow>()>& take);

  const WindowFacts& facts() const { return head().facts; }
  int64_t rows() const { return std::ssize(order_); }
  // Lays the row that is used as the index-th over row batch_row of the batch, which is empty.
  void CopyRow(int64_t index, int64_t batch_row, Batch& batch) const;

 private:
  struct Head {
    WindowFacts facts;
    int64_t spans = 0, rows = 0, bytes_before = 0, tokens = 0, mask = 0;  // elements
  };
  // memory: the head and then the arrays, one behind the other.
  explicit TextWindow(std::shared_ptr<const std::byte> memory);
  const Head& head() const { return *reinterpret_cast<const Head*>(memory_.get()); }
  static std::vector<std::span<const std::byte>> PiecesOf(const Head& head, const WindowDraft& draft);
  int64_t TargetBytes(const PackedSpan& span) const;

  std::shared_ptr<const std::byte> memory_;
  std::shared_ptr<SharedMemory> shared_;  // the same, where it is this process's to give to others
  std::span<const PackedSpan> spans_;
  std::span<const int64_t> first_span_, order_, bytes_before_;
  std::span<const int32_t> tokens_;
  std::span<const uint8_t> mask_;
};

}  // namespace fathom
