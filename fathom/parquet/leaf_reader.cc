#include "fathom/parquet/leaf_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/parquet/codec.h"

namespace fathom {
namespace {

constexpr int64_t kFirstHeaderBytes = 4 << 10, kLargestHeaderBytes = 16 << 20;  // statistics of long texts stand in it

int BitWidth(int max_level) {
  int width = 0;
  for (; max_level > 0; max_level >>= 1) ++width;
  return width;
}

template <class T>
T Little(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

LeafReader::LeafReader(const ParquetBytes& bytes, const ParquetNode& leaf, const ParquetChunk& chunk)
    : bytes_(bytes), leaf_(leaf), chunk_(chunk), at_(chunk.begin), left_in_chunk_(chunk.values) {
  if (chunk.type != leaf.type) Fail("its chunks have another type than the schema says");
  if (leaf.is_decimal || leaf.type == ParquetType::kInt96 || leaf.type == ParquetType::kFixedBytes)
    Fail("decimals, INT96 and values of a fixed length are not read; leave the column out, or write it as text");
}

void LeafReader::Fail(const char* what) const { Throw(ErrorCode::kInput, "{}: column {}: {}", bytes_.where, leaf_.name, what); }

std::string_view LeafReader::TakeBytes(std::string_view* from, uint64_t n) const {
  if (n > from->size()) Fail("damaged: a page ends early");
  const std::string_view taken = from->substr(0, n);
  from->remove_prefix(n);
  return taken;
}

ParquetPage LeafReader::ReadHeader() const {
  const std::string where = fmt::format("{}: column {}: page at byte {}", bytes_.where, leaf_.name, at_);
  for (int64_t n = kFirstHeaderBytes;; n *= 16) {
    std::string head(static_cast<size_t>(std::min(n, chunk_.end - at_)), '\0');
    bytes_.read(static_cast<uint64_t>(at_), std::as_writable_bytes(std::span(head)));
    try {
      return ParseParquetPage(head, where);
    } catch (const Error&) {
      if (n >= chunk_.end - at_ || n >= kLargestHeaderBytes) throw;
    }
  }
}

// The next page with entries, and the dictionary before it.
void LeafReader::ReadPage() {
  while (left_in_page_ == 0) {
    if (at_ >= chunk_.end) Fail("damaged: it has fewer values than its header says");
    const ParquetPage page = ReadHeader();
    at_ += static_cast<int64_t>(page.header_bytes);
    if (page.stored_bytes > chunk_.end - at_) Fail("damaged: a page reaches beyond its column");
    std::string stored(static_cast<size_t>(page.stored_bytes), '\0');
    bytes_.read(static_cast<uint64_t>(at_), std::as_writable_bytes(std::span(stored)));
    at_ += page.stored_bytes;
    if (page.kind == ParquetPage::kData2) {
      TakeData2(page, stored);
    } else if (page.kind != ParquetPage::kIndex) {
      std::string& target = page.kind == ParquetPage::kDictionary ? dictionary_page_ : page_;
      target = DecompressPage(chunk_.codec, stored, page.bytes, bytes_.where);
      page.kind == ParquetPage::kDictionary ? TakeDictionary(page) : TakeData(page);
    }
  }
}

void LeafReader::TakeDictionary(const ParquetPage& page) {
  std::string_view rest = dictionary_page_;
  if (leaf_.type == ParquetType::kBoolean) Fail("damaged: a dictionary of booleans");
  if (static_cast<uint64_t>(page.values) > rest.size() / 4) Fail("damaged: a dictionary with more values than bytes");
  dictionary_.clear();
  for (int64_t i = 0; i < page.values; ++i) dictionary_.push_back(PlainValue(&rest));
}

// Levels of the first kind of page: their length, then themselves.
std::string_view LeafReader::TakeLevels(std::string_view* page, int max_level, RunLengthReader* levels) const {
  if (max_level == 0) return {};
  const auto size = Little<uint32_t>(TakeBytes(page, 4));
  const std::string_view bytes = TakeBytes(page, size);
  *levels = RunLengthReader(bytes, BitWidth(max_level));
  return bytes;
}

void LeafReader::TakeData(const ParquetPage& page) {
  if (page.level_encoding != ParquetEncoding::kRle) Fail("levels of the deprecated encoding BIT_PACKED are not read");
  std::string_view rest = page_;
  TakeLevels(&rest, leaf_.max_repetition, &repetitions_);
  TakeLevels(&rest, leaf_.max_definition, &definitions_);
  left_in_page_ = page.values;
  StartValues(page.encoding, rest);
}

void LeafReader::TakeData2(const ParquetPage& page, std::string_view stored) {
  const std::string_view repetitions = TakeBytes(&stored, static_cast<uint64_t>(page.repetition_bytes));
  const std::string_view definitions = TakeBytes(&stored, static_cast<uint64_t>(page.definition_bytes));
  const int64_t values = page.bytes - page.repetition_bytes - page.definition_bytes;
  if (values < 0) Fail("damaged: a page smaller than its levels");
  // Its levels and its values in one string, that lives as long as they are read.
  page_ = std::string(repetitions) + std::string(definitions);
  page_ += page.compressed && values > 0 ? DecompressPage(chunk_.codec, stored, values, bytes_.where) : std::string(stored);
  std::string_view rest = page_;
  repetitions_ = RunLengthReader(TakeBytes(&rest, repetitions.size()), BitWidth(leaf_.max_repetition));
  definitions_ = RunLengthReader(TakeBytes(&rest, definitions.size()), BitWidth(leaf_.max_definition));
  left_in_page_ = page.values;
  StartValues(page.encoding, rest);
}

void LeafReader::StartValues(ParquetEncoding encoding, std::string_view values) {
  encoding_ = encoding == ParquetEncoding::kPlainDictionary ? ParquetEncoding::kDictionary : encoding;
  plain_ = values;
  bit_ = 0;
  const bool is_integer = leaf_.type == ParquetType::kInt32 || leaf_.type == ParquetType::kInt64;
  const bool is_text = leaf_.type == ParquetType::kBytes;
  if (encoding_ == ParquetEncoding::kDictionary) {
    // A page of nulls alone may have no bytes at all.
    const auto width = plain_.empty() ? uint8_t{0} : static_cast<uint8_t>(TakeBytes(&plain_, 1)[0]);
    if (width > 32) Fail("damaged: indices of more than 32 bits");
    indices_ = RunLengthReader(plain_, width);
  } else if (encoding_ == ParquetEncoding::kRle && leaf_.type == ParquetType::kBoolean) {
    TakeLevels(&plain_, 1, &indices_);
  } else if (encoding_ == ParquetEncoding::kDelta && is_integer) {
    deltas_ = DeltaReader(plain_);
  } else if (encoding_ == ParquetEncoding::kDeltaLength && is_text) {
    deltas_ = DeltaReader(plain_);
    TakeBytes(&plain_, DeltaReader(plain_).SkipAll());
  } else if (encoding_ == ParquetEncoding::kDeltaBytes && is_text) {
    prefixes_ = DeltaReader(plain_);
    TakeBytes(&plain_, DeltaReader(plain_).SkipAll());
    deltas_ = DeltaReader(plain_);
    TakeBytes(&plain_, DeltaReader(plain_).SkipAll());
    text_.clear();
  } else if (encoding_ != ParquetEncoding::kPlain) {
    Fail("an encoding that is not read; write it anew with PLAIN or dictionary encoding");
  }
}

int LeafReader::NextLevel(RunLengthReader& levels, int max_level) const {
  if (max_level == 0) return 0;
  uint32_t level = 0;
  if (!levels.Next(&level) || level > static_cast<uint32_t>(max_level)) Fail("damaged: a level out of range");
  return static_cast<int>(level);
}

void LeafReader::Load() {
  if (left_in_chunk_ == 0) Fail("damaged: it has fewer entries than other columns");
  if (left_in_page_ == 0) ReadPage();
  entry_.repetition = NextLevel(repetitions_, leaf_.max_repetition);
  entry_.definition = NextLevel(definitions_, leaf_.max_definition);
  if (entry_.definition == leaf_.max_definition) entry_.value = NextValue();
  --left_in_page_;
  --left_in_chunk_;
  loaded_ = true;
}

// Of 32 bits, as the column's sign says.
int64_t LeafReader::Narrow(int64_t value) const {
  return leaf_.is_unsigned ? static_cast<int64_t>(static_cast<uint32_t>(value)) : static_cast<int64_t>(static_cast<int32_t>(value));
}

ParquetValue LeafReader::PlainValue(std::string_view* plain) const {
  switch (leaf_.type) {
    case ParquetType::kInt32:
      return {.integer = Narrow(Little<int32_t>(TakeBytes(plain, 4)))};
    case ParquetType::kInt64:
      return {.integer = Little<int64_t>(TakeBytes(plain, 8))};
    case ParquetType::kFloat:
      return {.real = static_cast<double>(Little<float>(TakeBytes(plain, 4)))};
    case ParquetType::kDouble:
      return {.real = Little<double>(TakeBytes(plain, 8))};
    default:
      return {.text = TakeBytes(plain, Little<uint32_t>(TakeBytes(plain, 4)))};
  }
}

ParquetValue LeafReader::DeltaBytesValue() {
  int64_t prefix = 0, suffix = 0;
  if (!prefixes_.Next(&prefix) || !deltas_.Next(&suffix) || prefix < 0 || suffix < 0 || prefix > std::ssize(text_))
    Fail("damaged: lengths of texts");
  text_.resize(static_cast<size_t>(prefix));
  text_ += TakeBytes(&plain_, static_cast<uint64_t>(suffix));
  return {.text = text_};
}

ParquetValue LeafReader::NextValue() {
  uint32_t index = 0;
  int64_t number = 0;
  uint64_t bit = 0;
  switch (encoding_) {
    case ParquetEncoding::kDictionary:
      if (!indices_.Next(&index) || index >= dictionary_.size()) Fail("damaged: an index beyond the dictionary");
      return dictionary_[index];
    case ParquetEncoding::kRle:
      if (!indices_.Next(&index)) Fail("damaged: a page ends early");
      return {.integer = static_cast<int64_t>(index)};
    case ParquetEncoding::kDelta:
      if (!deltas_.Next(&number)) Fail("damaged: a page ends early");
      return {.integer = leaf_.type == ParquetType::kInt32 ? Narrow(number) : number};
    case ParquetEncoding::kDeltaLength:
      if (!deltas_.Next(&number) || number < 0) Fail("damaged: lengths of texts");
      return {.text = TakeBytes(&plain_, static_cast<uint64_t>(number))};
    case ParquetEncoding::kDeltaBytes:
      return DeltaBytesValue();
    default:
      if (leaf_.type != ParquetType::kBoolean) return PlainValue(&plain_);
      if (!ReadBits(plain_, bit_++, 1, &bit)) Fail("damaged: a page ends early");
      return {.integer = static_cast<int64_t>(bit)};
  }
}

}  // namespace fathom
