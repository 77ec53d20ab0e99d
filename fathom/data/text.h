// Files of text or of conversations, tokenised in the background and packed into rows.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/data/batch_source.h"
#include "fathom/data/document_stream.h"
#include "fathom/data/packer.h"
#include "fathom/data/text_window.h"
#include "fathom/parallel/comm.h"

namespace fathom {

// Called from several threads at once.
using EncodeFunction = std::function<std::vector<int32_t>(std::string_view)>;

// A document as it is trained on.
struct Sample {
  enum Fate { kWhole, kTruncated, kTooLong, kWithoutTarget, kBad };  // the last three: ids is empty
  std::vector<int32_t> ids;
  std::vector<uint8_t> mask;  // 1: counted as a target; as long as ids, or empty: all are
  Fate fate = kWhole;
};
// Likewise. Error(kInput): the document is bad; the message need not say where it stands.
using SampleFunction = std::function<Sample(const Document&)>;

struct TextConfig {
  StreamConfig stream;
  std::string kind = "text";     // of the data, kept with its position
  std::string settings;          // others that decide what a document becomes: a position counts with them too
  bool skip_bad = false;         // count bad documents instead of throwing
  bool fill_batch = true;        // refuse data without end that has less than one batch
  int64_t rows = 0, length = 0;  // of this rank's batch
  int rank = 0, ranks = 1;       // rank r gets rows r*rows .. of each global batch of ranks*rows
  Packing packing = Packing::kFirstFit;
  int64_t max_segments = -1;                    // per row; 0 or less: any number
  int64_t epochs = 0;                           // 0: without end
  int32_t bos_id = -1;                          // put before every document, and every part of a long plain text; -1: none
  int32_t eos_id = -1;                          // the last target of every document; -1: none
  int64_t window_bytes = 4 << 20;               // of text that is tokenised, packed and whose rows are shuffled together
  int threads = 2;                              // that tokenise
  std::function<int64_t(int32_t)> token_bytes;  // of the text that a token stands for; empty: a batch's text_bytes aren't counted
  uint64_t tokenizer_hash = 0;                  // of its file: a position counts the rows that one tokenizer made
  Comm host;                                    // the ranks of this machine, whose first one reads and tokenises for all of them
};

// Every token of the data is once a target in an epoch (with bos_id also the first of a document), never across documents.
// The order is that of the whole group of ranks, so a run may resume with another number of them. Memory: about three windows.
// Files are read, parsed and tokenised once on a machine; a fault there is thrown by Next, on all of its ranks. With several of them every
// call that may throw is made by all, in the same order.
class TextSource final : public BatchSource {
 public:
  // Throws Error(kInput) as FindDataFiles.
  TextSource(const TextConfig& config, EncodeFunction encode);
  TextSource(const TextConfig& config, SampleFunction sample);
  ~TextSource() override;

  // Throws Error(kInput): no text in the whole data set, or with epochs = 0 less than one global batch; a bad document, with its place.
  // Then State still tells of the batch that failed; Restore and Reset start again.
  bool Next(Batch* batch) override;
  Json State() const override;
  void Restore(const Json& state) override;
  void Reset() override;
  SampleCounts counts() const override { return counts_; }
  int64_t bytes_tokenised() const override { return bytes_tokenised_; }

 private:
  class Reader;  // prepares windows in a thread of its own
  void StartAt(const DocumentPosition& position, int64_t row);
  bool NextRow(Batch* batch, int64_t batch_row);

  TextConfig config_;
  SampleFunction sample_;
  SampleCounts counts_;  // of the windows that were begun
  uint64_t settings_hash_, files_hash_ = 0;
  int64_t bytes_tokenised_ = 0;         // for them, by this rank
  std::unique_ptr<Reader> reader_;      // of the machine's first rank alone
  std::unique_ptr<TextWindow> window_;  // being used up
  DocumentPosition start_;              // of window_, or of the next one
  int64_t row_ = 0;                     // of window_
};

}  // namespace fathom
