#include "fathom/tokenizer/tokenizer_json.h"

#include "fathom/base/error.h"
#include "fathom/tokenizer/utf8.h"

namespace fathom {
namespace {

constexpr size_t kMaxDepth = 64;

// nlohmann's event interface: builds `rest` as a tree and takes the two large parts aside.
class Reader : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::string& where) : where_(where) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override {
    if (part_ == Part::kMerges) return AddMergeText(value);
    return Add(std::move(value));
  }
  bool binary(binary_t&) override { return false; }  // not in JSON text
  bool key(string_t& name) override {
    key_ = std::move(name);
    if (part_ == Part::kRest && open_.back()->contains(key_)) Throw(ErrorCode::kInput, "{}: key {} stands twice", where_, QuoteJson(key_));
    return true;
  }
  bool start_object(size_t) override {
    const bool vocabulary = part_ == Part::kRest && open_.size() == 2 && in_model_ && key_ == "vocab";
    if (!vocabulary) return Open(Json::object());
    return EnterPart(Part::kVocabulary, has_vocabulary_);
  }
  bool start_array(size_t) override {
    if (part_ == Part::kMerges && !in_pair_) {
      in_pair_ = true;
      pair_.clear();
      return true;
    }
    const bool merges = part_ == Part::kRest && open_.size() == 2 && in_model_ && key_ == "merges";
    if (!merges) return Open(Json::array());
    return EnterPart(Part::kMerges, has_merges_);
  }
  bool end_object() override { return Close(); }
  bool end_array() override {
    if (!in_pair_) return Close();
    in_pair_ = false;
    if (pair_.size() != 2) BadMerge(pair_);
    raw_.merges.push_back({pair_[0] + pair_[1], pair_[0].size()});
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    Throw(ErrorCode::kInput, "{}: not valid JSON ({})", where_, e.what());
  }

  RawTokenizer Take() {
    if (!has_vocabulary_) Throw(ErrorCode::kInput, "{}: no object \"model.vocab\"", where_);
    if (!has_merges_) Throw(ErrorCode::kInput, "{}: no array \"model.merges\"", where_);
    return std::move(raw_);
  }

 private:
  enum class Part { kRest, kVocabulary, kMerges };

  [[noreturn]] void BadMerge(const Json& merge) const {
    Throw(ErrorCode::kInput, "{}: merge {} is {}, neither \"a b\" nor [\"a\", \"b\"]", where_, raw_.merges.size(), QuoteJson(merge));
  }

  bool AddMergeText(std::string& text) {
    if (in_pair_) {
      pair_.push_back(std::move(text));
      return true;
    }
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) BadMerge(text);
    text.erase(space, 1);
    raw_.merges.push_back({std::move(text), space});
    return true;
  }

  // Puts a value where the tree is open; the place of it.
  Json* Place(Json value) {
    if (open_.empty()) return &(raw_.rest = std::move(value));
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool Add(Json value) {
    if (part_ == Part::kMerges) BadMerge(value);
    if (part_ == Part::kVocabulary) {
      raw_.vocabulary.emplace_back(std::move(key_), std::move(value));
    } else {
      Place(std::move(value));
    }
    return true;
  }

  bool Open(Json container) {
    if (part_ == Part::kMerges) BadMerge(container);
    if (part_ == Part::kVocabulary) Throw(ErrorCode::kInput, "{}: token {} has no number as its id", where_, QuoteJson(key_));
    if (open_.size() == kMaxDepth) Throw(ErrorCode::kInput, "{}: JSON nested deeper than {}", where_, kMaxDepth);
    if (open_.size() == 1) in_model_ = open_[0]->is_object() && key_ == "model";
    open_.push_back(Place(std::move(container)));
    return true;
  }

  bool EnterPart(Part part, bool& seen) {
    if (seen) Throw(ErrorCode::kInput, "{}: key {} stands twice", where_, QuoteJson(key_));
    seen = true;
    part_ = part;
    return true;
  }

  bool Close() {
    part_ == Part::kRest ? open_.pop_back() : void(part_ = Part::kRest);
    return true;
  }

  const std::string& where_;
  RawTokenizer raw_;
  std::vector<Json*> open_;  // containers from the root to where the parser stands; only the last one changes
  std::string key_;
  std::vector<std::string> pair_;
  Part part_ = Part::kRest;
  bool in_model_ = false, in_pair_ = false, has_vocabulary_ = false, has_merges_ = false;
};

}  // namespace

RawTokenizer ParseTokenizerJson(std::string_view text, const std::string& where) {
  Reader reader(where);
  Json::sax_parse(text.data(), text.data() + text.size(), &reader);
  return reader.Take();
}

std::string QuoteJson(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 80 ? ToValidUtf8(text.substr(0, 80)) + "..." : text;
}

}  // namespace fathom
