#include "fathom/data/text.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

// f(i) for i in [0, n) on threads of their own, apart from the pool that computes; the exception of the lowest i is thrown here.
template <class F>
void OnOwnThreads(size_t n, int threads, const F& f) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  size_t failed = n;
  const auto work = [&] {
    for (size_t i = next++; i < n; i = next++) {
      try {
        f(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed) failure = std::current_exception();
        failed = std::min(failed, i);
        next = n;
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

uint64_t HashSettings(const TextConfig& c) {
  return HashName(fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {}{}", c.stream.text_field, c.stream.seed, c.stream.shuffle,
                              c.stream.held_out_fraction, static_cast<int>(c.stream.split), c.stream.extent_bytes, c.length,
                              static_cast<int>(c.packing), c.max_segments, c.epochs, c.bos_id, c.eos_id, c.window_bytes, c.settings));
}

}  // namespace

class TextSource::Reader {
 public:
  Reader(const TextConfig& config, const SampleFunction& sample, const DocumentPosition& start)
      : config_(config), sample_(sample), stream_(config.stream), start_(start) {
    stream_.Seek(start);
  }
  ~Reader() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
  }
  uint64_t files_hash() const { return stream_.files_hash(); }

  // Waits for the next window; null after the last one.
  std::unique_ptr<TextWindow> Take() {
    if (!thread_.joinable()) {
      thread_ = std::jthread([this] {
        UnbindThread();
        Run();
      });
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_ != nullptr || finished_; });
    if (ready_ == nullptr && failure_) std::rethrow_exception(failure_);
    std::unique_ptr<TextWindow> window = std::move(ready_);
    lock.unlock();
    changed_.notify_all();
    return window;
  }

 private:
  void Run() {
    std::exception_ptr failure;
    try {
      while (Offer(Build())) {
      }
    } catch (...) {
      failure = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      failure_ = failure;
      finished_ = true;
    }
    changed_.notify_all();
  }

  // Hands the window over once the one before it is taken; false when it was the last or nobody wants it.
  bool Offer(std::unique_ptr<TextWindow> window) {
    const bool last = window->facts().ends_data;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_ == nullptr || stopping_; });
    if (stopping_) return false;
    ready_ = std::move(window);
    lock.unlock();
    changed_.notify_all();
    return !last;
  }

  std::unique_ptr<TextWindow> Build() {
    WindowDraft window;
    window.facts.start = stream_.position();
    ReadDocuments(window);
    Tokenise(window);
    const int64_t rows = window.packed.rows();
    if (config_.stream.shuffle) {
      const DocumentPosition& s = window.facts.start;
      window.order = ShuffledOrder(rows, config_.stream.seed, fmt::format("data rows {} {} {}", s.epoch, s.extent, s.document));
    } else {
      window.order.resize(static_cast<size_t>(rows));
      std::iota(window.order.begin(), window.order.end(), int64_t{0});
    }
    epoch_targets_ += window.facts.targets;
    if (window.facts.ends_epoch) EndEpoch(window.facts);
    window.facts.next = stream_.position();
    return TextWindow::Make(window, config_.host.size() > 1);
  }

  void ReadDocuments(WindowDraft& window) {
    documents_.clear();
    Document document;
    for (int64_t& bytes = window.facts.text_bytes; bytes < config_.window_bytes;) {
      if (!stream_.Next(&document)) {
        window.facts.ends_epoch = true;
        return;
      }
      bytes += static_cast<int64_t>(document.text.size());
      documents_.push_back(std::move(document));
    }
  }

  void Tokenise(WindowDraft& window) {
    std::vector<Sample> samples(documents_.size());
    OnOwnThreads(documents_.size(), config_.threads, [&](size_t i) { samples[i] = MakeSample(documents_[i]); });
    Packer packer(config_.packing, config_.length, config_.max_segments);
    for (size_t i = 0; i < documents_.size(); ++i) {
      Count(samples[i].fate, window.facts.counts);
      if (samples[i].fate <= Sample::kTruncated) Add(documents_[i], samples[i], packer, window);
    }
    if (config_.token_bytes) ExtendBytes(window, window.tokens.size() + 1);
    window.packed = packer.Finish();
  }

  Sample MakeSample(const Document& document) const {
    try {
      return sample_(document);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInput) throw;
      if (config_.skip_bad) return {.fate = Sample::kBad};
      Throw(ErrorCode::kInput, "{}: {}", stream_.Describe(document), e.what());
    }
  }

  static void Count(Sample::Fate fate, SampleCounts& counts) {
    ++counts.read;
    counts.truncated += fate == Sample::kTruncated ? 1 : 0;
    counts.too_long += fate == Sample::kTooLong ? 1 : 0;
    counts.without_target += fate == Sample::kWithoutTarget ? 1 : 0;
    counts.bad += fate == Sample::kBad ? 1 : 0;
  }

  // One more document at the end of the window, between BOS and EOS if there are to be some.
  void Add(const Document& document, const Sample& sample, Packer& packer, WindowDraft& window) const {
    const auto begin = static_cast<int64_t>(window.tokens.size());
    if (config_.bos_id >= 0) window.tokens.push_back(config_.bos_id);
    window.tokens.insert(window.tokens.end(), sample.ids.begin(), sample.ids.end());
    window.mask.insert(window.mask.end(), sample.mask.begin(), sample.mask.end());
    CountBytes(window, sample.ids);
    if (config_.eos_id >= 0 && document.ends) window.tokens.push_back(config_.eos_id);
    const int64_t targets = static_cast<int64_t>(window.tokens.size()) - begin - 1;
    packer.Add(begin, targets);
    window.facts.targets += std::max<int64_t>(targets, 0);
  }

  // Tokens that stand for no text, up to `size` sums.
  static void ExtendBytes(WindowDraft& window, size_t size) {
    window.bytes_before.resize(size, window.bytes_before.empty() ? 0 : window.bytes_before.back());
  }

  // ids: the text's, at the end of the window's tokens.
  void CountBytes(WindowDraft& window, const std::vector<int32_t>& ids) const {
    if (!config_.token_bytes) return;
    ExtendBytes(window, window.tokens.size() - ids.size() + 1);
    for (const int32_t id : ids) window.bytes_before.push_back(window.bytes_before.back() + config_.token_bytes(id));
  }

  void EndEpoch(WindowFacts& window) {
    const int64_t epoch = stream_.position().epoch;
    if (start_ == DocumentPosition{epoch, 0, 0}) CheckEnough();
    window.ends_data = config_.epochs > 0 && epoch + 1 >= config_.epochs;
    epoch_targets_ = 0;
    stream_.Seek({epoch + 1, 0, 0});
  }

  // After the first epoch that was read as a whole.
  void CheckEnough() const {
    const int64_t batch = config_.ranks * config_.rows * config_.length;
    if (epoch_targets_ == 0) {
      Throw(ErrorCode::kInput, "{}={}: no text to learn from{}", config_.stream.path_flag, config_.stream.dataset_path,
            config_.stream.split == Split::kHeldOut ? " is held out; give a larger held_out_fraction"
            : config_.stream.split == Split::kTrain ? " is left to train on; give a smaller held_out_fraction"
                                                    : "");
    }
    if (config_.fill_batch && config_.epochs == 0 && epoch_targets_ < batch) {
      Throw(ErrorCode::kInput, "{}={}: {} tokens are fewer than one batch of {}; give more text or a smaller per_device_batch_size",
            config_.stream.path_flag, config_.stream.dataset_path, epoch_targets_, batch);
    }
  }

  TextConfig config_;
  SampleFunction sample_;
  DocumentStream stream_;
  DocumentPosition start_;
  std::vector<Document> documents_;
  int64_t epoch_targets_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<TextWindow> ready_;
  std::exception_ptr failure_;
  bool finished_ = false, stopping_ = false;
  std::jthread thread_;  // last: it ends before the rest goes
};

TextSource::TextSource(const TextConfig& config, EncodeFunction encode)
    : TextSource(config, [encode = std::move(encode)](const Document& document) {
        return Sample{encode(document.text), {}};
      }) {}

TextSource::TextSource(const TextConfig& config, SampleFunction sample)
    : config_(config), sample_(std::move(sample)), settings_hash_(HashSettings(config)) {
  FATHOM_CHECK(config_.rows > 0 && config_.length > 0 && config_.rank < config_.ranks && config_.threads > 0);
  StartAt({}, 0);
}

TextSource::~TextSource() = default;

void TextSource::StartAt(const DocumentPosition& position, int64_t row) {
  window_.reset();
  reader_.reset();
  files_hash_ = ValueFromFirst<uint64_t>(config_.host, [&] {
    reader_ = std::make_unique<Reader>(config_, sample_, position);
    return reader_->files_hash();
  });
  start_ = position;
  row_ = row;
}

void TextSource::Reset() { StartAt({}, 0); }

// Lays the next row of the group over row batch_row of batch (-1: another rank's, skipped). False at the end of the data.
bool TextSource::NextRow(Batch* batch, int64_t batch_row) {
  while (window_ == nullptr || row_ >= window_->rows()) {
    if (window_ != nullptr) {
      if (window_->facts().ends_data) return false;
      start_ = window_->facts().next;
      row_ = 0;
    }
    window_ = TextWindow::FromFirst(config_.host, [this] { return reader_->Take(); });
    if (window_ == nullptr) return false;
    counts_ += window_->facts().counts;
    if (reader_) bytes_tokenised_ += window_->facts().text_bytes;
  }
  if (batch_row >= 0) window_->CopyRow(row_, batch_row, *batch);
  ++row_;
  return true;
}

bool TextSource::Next(Batch* batch) {
  batch->Clear(config_.rows, config_.length);
  const DocumentPosition start = start_;
  const int64_t row = row_, first = config_.rank * config_.rows;
  try {
    for (int64_t r = 0; r < config_.ranks * config_.rows; ++r) {
      const bool mine = r >= first && r < first + config_.rows;
      if (!NextRow(batch, mine ? r - first : -1)) return r > 0;
    }
  } catch (...) {
    start_ = start;
    row_ = row;
    throw;
  }
  return true;
}

Json TextSource::State() const {
  return {{"kind", config_.kind},  {"files", files_hash_},    {"settings", settings_hash_},  {"tokenizer", config_.tokenizer_hash},
          {"epoch", start_.epoch}, {"extent", start_.extent}, {"document", start_.document}, {"row", row_}};
}

void TextSource::Restore(const Json& state) {
  if (!state.is_object() || state.value("kind", "") != config_.kind) {
    Throw(ErrorCode::kInput,
          "the checkpoint's data position is not one in {}; resume with the dataset_type (and use_sft) it was trained with", config_.kind);
  }
  if (state.value("files", uint64_t{0}) != files_hash_) {
    Throw(ErrorCode::kInput,
          "{}={}: other files than the checkpoint was trained on (names or sizes differ); give the same ones, or "
          "load_full_state_path= of "
          "that checkpoint and another run_name to read these from their start",
          config_.stream.path_flag, config_.stream.dataset_path);
  }
  if (state.value("settings", uint64_t{0}) != settings_hash_) {
    Throw(ErrorCode::kInput,
          "data settings (seed, shuffling, packing, max_target_length, BOS and EOS, held-out part) differ from the checkpoint's; resume "
          "with the same ones");
  }
  // States of before this was written have none.
  if (state.value("tokenizer", config_.tokenizer_hash) != config_.tokenizer_hash) {
    Throw(ErrorCode::kInput, "tokenizer_path: another tokenizer.json than the checkpoint was trained with; give the same one");
  }
  StartAt({state.value("epoch", int64_t{0}), state.value("extent", int64_t{0}), state.value("document", int64_t{0})},
          state.value("row", int64_t{0}));
}

}  // namespace fathom
