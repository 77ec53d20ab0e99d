#include "fathom/tokenizer/tokenizer_file.h"

#include <bit>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/tokenizer/byte_alphabet.h"
#include "fathom/tokenizer/tokenizer_json.h"

namespace fathom {
namespace {

constexpr int64_t kMaxTokenId = int64_t{1} << 22;

// Ids by the name of the token: open addressing, since a load looks up half a million names.
class NameTable {
 public:
  explicit NameTable(size_t most) : slots_(std::bit_ceil(2 * most + 16)) {}

  // The id of the name, -1 if it has none.
  int32_t Find(std::string_view name) const { return slots_[Index(name)].id; }
  // name must outlive the table. False if it has an id already.
  bool Insert(std::string_view name, int32_t id) {
    Slot& slot = slots_[Index(name)];
    if (slot.id >= 0) return false;
    slot = {name, id};
    return true;
  }

 private:
  struct Slot {
    std::string_view name;
    int32_t id = -1;
  };
  size_t Index(std::string_view name) const {
    size_t i = std::hash<std::string_view>{}(name) & (slots_.size() - 1);
    while (slots_[i].id >= 0 && slots_[i].name != name) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  std::vector<Slot> slots_;
};

size_t AddedCount(const Json& root) {
  const auto it = root.find("added_tokens");
  return it == root.end() ? 0 : it->size();
}

class Parser {
 public:
  Parser(const RawTokenizer& raw, const std::string& where)
      : raw_(raw), root_(raw.rest), where_(where), ids_(raw.vocabulary.size() + AddedCount(raw.rest)) {}

  TokenizerFile Parse() {
    CheckNormalizer();
    CheckDecoder();
    CheckModel(Entry(root_, "model"));
    TokenizerFile file{{}, {}, {}, {}, PreTokenizer::FromJson(Entry(root_, "pre_tokenizer"), where_)};
    ReadVocabulary(file);
    ReadByteTokens(file);
    ReadMerges(file);
    if (const auto it = root_.find("added_tokens"); it != root_.end() && !it->is_null()) ReadAddedTokens(*it, file);
    return file;
  }

 private:
  const Json& Entry(const Json& object, const char* name) const {
    const auto it = object.find(name);
    if (it == object.end()) Throw(ErrorCode::kInput, "{}: no \"{}\"", where_, name);
    return *it;
  }

  void CheckNormalizer() const {
    const auto it = root_.find("normalizer");
    if (it == root_.end() || it->is_null()) return;
    const bool empty = it->is_object() && it->value("type", Json()) == "Sequence" && it->value("normalizers", Json()) == Json::array();
    if (!empty) Throw(ErrorCode::kInput, "{}: normalizer {} is not supported (only none)", where_, QuoteJson(*it));
  }

  void CheckDecoder() const {
    const Json& decoder = Entry(root_, "decoder");
    if (!decoder.is_object() || decoder.value("type", Json()) != "ByteLevel") {
      Throw(ErrorCode::kInput, "{}: decoder {} is not supported (only ByteLevel)", where_, QuoteJson(decoder));
    }
  }

  void CheckModel(const Json& model) const {
    if (const Json type = model.value("type", Json("BPE")); type != "BPE") {
      Throw(ErrorCode::kInput, "{}: model type {} is not supported (only BPE)", where_, QuoteJson(type));
    }
    for (const char* name : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
      const Json value = model.value(name, Json());
      if (value.is_null() || value == false || value == "" || value == 0) continue;
      Throw(ErrorCode::kInput, "{}: model.{} = {} is not supported", where_, name, QuoteJson(value));
    }
  }

  int32_t CheckedId(const Json& id, std::string_view token) const {
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
      Throw(ErrorCode::kInput, "{}: token {} has the id {}, not an integer from 0 to {}", where_, QuoteJson(token), QuoteJson(id),
            kMaxTokenId);
    }
    return id.get<int32_t>();
  }

  // Gives the token its id and the bytes that it decodes to.
  void AddToken(int32_t id, std::string_view name, TokenizerFile& file) {
    const auto index = static_cast<size_t>(id);
    if (index >= file.token_bytes.size()) file.token_bytes.resize(index + 1);
    if (!file.token_bytes[index].empty())
      Throw(ErrorCode::kInput, "{}: id {} stands for two tokens, one is {}", where_, id, QuoteJson(name));
    file.token_bytes[index] = reader_.DecodedBytes(name);
    if (!ids_.Insert(name, id)) Throw(ErrorCode::kInput, "{}: token {} stands twice", where_, QuoteJson(name));
  }

  void ReadVocabulary(TokenizerFile& file) {
    file.token_bytes.reserve(raw_.vocabulary.size());
    for (const auto& [name, id] : raw_.vocabulary) {
      if (name.empty()) Throw(ErrorCode::kInput, "{}: model.vocab holds an empty token", where_);
      AddToken(CheckedId(id, name), name, file);
    }
  }

  void ReadByteTokens(TokenizerFile& file) const {
    for (size_t b = 0; b < 256; ++b) {
      const std::string name = BytesToStandIns(std::string(1, static_cast<char>(b)));
      file.byte_ids[b] = ids_.Find(name);
      const bool needed = b < 0xC0 || (b > 0xC1 && b < 0xF5);  // the others never stand in UTF-8
      if (needed && file.byte_ids[b] < 0)
        Throw(ErrorCode::kInput, "{}: model.vocab has no token {} for the byte {}", where_, QuoteJson(name), b);
    }
  }

  int32_t Find(std::string_view name, size_t rank) const {
    const int32_t id = ids_.Find(name);
    if (id < 0) Throw(ErrorCode::kInput, "{}: merge {} needs the token {}, which is not in model.vocab", where_, rank, QuoteJson(name));
    return id;
  }

  void ReadMerges(TokenizerFile& file) const {
    file.merges.reserve(raw_.merges.size());
    for (const RawMerge& merge : raw_.merges) {
      const size_t rank = file.merges.size();
      const std::string_view joined = merge.joined;
      file.merges.push_back(
          {Find(joined.substr(0, merge.left_length), rank), Find(joined.substr(merge.left_length), rank), Find(joined, rank)});
    }
  }

  bool Flag(const Json& token, const char* name) const {
    const Json value = token.value(name, Json(false));
    if (!value.is_boolean()) Throw(ErrorCode::kInput, "{}: added token {}: \"{}\" is not true or false", where_, QuoteJson(token), name);
    return value.get<bool>();
  }

  void ReadAddedTokens(const Json& tokens, TokenizerFile& file) {
    if (!tokens.is_array()) Throw(ErrorCode::kInput, "{}: \"added_tokens\" is not an array", where_);
    for (const Json& token : tokens) {
      const auto content = token.is_object() ? token.find("content") : token.end();
      if (content == token.end() || !content->is_string() || *content == "")
        Throw(ErrorCode::kInput, "{}: added token {} has no content", where_, QuoteJson(token));
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (Flag(token, name)) Throw(ErrorCode::kInput, "{}: added token {}: {} is not supported", where_, QuoteJson(*content), name);
      }
      const std::string& name = content->get_ref<const std::string&>();
      const int32_t id = CheckedId(token.value("id", Json()), name);
      const int32_t known = ids_.Find(name);
      if (known < 0) AddToken(id, name, file);
      if (known >= 0 && known != id) Throw(ErrorCode::kInput, "{}: token {} has two ids, {} and {}", where_, QuoteJson(name), known, id);
      file.added.push_back({id, name, Flag(token, "special"), Flag(token, "normalized")});
    }
  }

  const RawTokenizer& raw_;
  const Json& root_;
  const std::string& where_;
  StandInReader reader_;
  NameTable ids_;  // names live in raw_
};

std::string TokenName(const Json& config, const char* name, const std::string& where) {
  const Json entry = config.value(name, Json());
  if (entry.is_null()) return "";
  const Json content = entry.is_object() ? entry.value("content", Json()) : entry;
  if (!content.is_string()) Throw(ErrorCode::kInput, "{}: \"{}\" is {}, not a token", where, name, QuoteJson(entry));
  return content.get<std::string>();
}

}  // namespace

TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& where) {
  const RawTokenizer raw = ParseTokenizerJson(text, where);
  return Parser(raw, where).Parse();
}

TokenizerConfig ReadTokenizerConfig(const std::filesystem::path& path) {
  TokenizerConfig config;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return config;
  const std::string where = path.string();
  const Json root = ReadJsonFile(path);
  if (!root.is_object()) Throw(ErrorCode::kInput, "{}: not a JSON object", where);
  config.bos_token = TokenName(root, "bos_token", where);
  config.eos_token = TokenName(root, "eos_token", where);
  const Json add = root.value("add_bos_token", Json(false));
  if (!add.is_boolean() && !add.is_null())
    Throw(ErrorCode::kInput, "{}: \"add_bos_token\" is {}, not true or false", where, QuoteJson(add));
  config.add_bos_token = add == true;
  return config;
}

}  // namespace fathom
