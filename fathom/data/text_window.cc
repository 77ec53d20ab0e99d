#include "fathom/data/text_window.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace fathom {
namespace {

std::shared_ptr<const std::byte> NewMemory(size_t size) {
  return {new std::byte[size], [](const std::byte* bytes) { delete[] bytes; }};
}

template <class T>
std::span<const std::byte> Bytes(const std::vector<T>& list) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span(list));
}

}  // namespace

// Those of larger elements come first, so that all are aligned.
std::vector<std::span<const std::byte>> TextWindow::PiecesOf(const Head& head, const WindowDraft& d) {
  return {std::as_bytes(std::span(&head, 1)),
          Bytes(d.packed.spans),
          Bytes(d.packed.first_span),
          Bytes(d.order),
          Bytes(d.bytes_before),
          Bytes(d.tokens),
          Bytes(d.mask)};
}

TextWindow::TextWindow(std::shared_ptr<const std::byte> memory) : memory_(std::move(memory)) {
  const std::byte* at = memory_.get() + sizeof(Head);
  const auto take = [&at]<class T>(std::span<const T>& list, int64_t count) {
    list = {reinterpret_cast<const T*>(at), static_cast<size_t>(count)};
    at += list.size_bytes();
  };
  const Head& h = head();
  take(spans_, h.spans);
  take(first_span_, h.rows + 1);
  take(order_, h.rows);
  take(bytes_before_, h.bytes_before);
  take(tokens_, h.tokens);
  take(mask_, h.mask);
}

std::unique_ptr<TextWindow> TextWindow::Make(const WindowDraft& d, bool shared) {
  const Head head{d.facts,           std::ssize(d.packed.spans), d.packed.rows(), std::ssize(d.bytes_before), std::ssize(d.tokens),
                  std::ssize(d.mask)};
  const auto pieces = PiecesOf(head, d);
  size_t size = 0;
  for (const auto& piece : pieces) size += piece.size();
  const std::shared_ptr<SharedMemory> memory = shared ? SharedMemory::Create(size) : nullptr;
  const auto bytes = memory ? std::shared_ptr<const std::byte>(memory, memory->bytes().data()) : NewMemory(size);
  std::byte* at = const_cast<std::byte*>(bytes.get());  // nobody else has it yet
  for (const auto& piece : pieces) at = std::ranges::copy(piece, at).out;
  std::unique_ptr<TextWindow> window(new TextWindow(bytes));
  window->shared_ = memory;
  return window;
}

std::unique_ptr<TextWindow> TextWindow::FromFirst(const Comm& host, const std::function<std::unique_ptr<TextWindow>()>& take) {
  if (host.size() == 1) return take();
  std::unique_ptr<TextWindow> mine;
  const std::shared_ptr<const SharedMemory> memory = MemoryFromFirst(host, [&] {
    mine = take();
    return mine ? mine->shared_ : nullptr;
  });
  if (mine || memory == nullptr) return mine;
  return std::unique_ptr<TextWindow>(new TextWindow({memory, memory->bytes().data()}));
}

int64_t TextWindow::TargetBytes(const PackedSpan& span) const {
  if (bytes_before_.empty()) return 0;
  const auto first = static_cast<size_t>(span.begin) + 1, end = first + static_cast<size_t>(span.count);
  return bytes_before_[end] - bytes_before_[first];
}

void TextWindow::CopyRow(int64_t index, int64_t batch_row, Batch& batch) const {
  const auto r = static_cast<size_t>(order_[static_cast<size_t>(index)]);
  int64_t at = batch_row * batch.length;
  for (int64_t s = first_span_[r]; s < first_span_[r + 1]; ++s) {
    const PackedSpan& span = spans_[static_cast<size_t>(s)];
    const int32_t* tokens = tokens_.data() + span.begin;
    const uint8_t* mask = mask_.empty() ? nullptr : mask_.data() + span.begin + 1;
    batch.AddSegment(at, span.count, tokens, tokens + 1, static_cast<int32_t>(s - first_span_[r]) + 1, mask);
    batch.text_bytes += TargetBytes(span);
    at += span.count;
  }
}

}  // namespace fathom
