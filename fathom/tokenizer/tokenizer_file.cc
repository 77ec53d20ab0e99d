#include "fathom/tokenizer/tokenizer_file.h"

#include <string_view>
#include <unordered_map>

#include "fathom/base/error.h"
#include "fathom/tokenizer/byte_alphabet.h"

namespace fathom {
namespace {

constexpr int64_t kMaxTokenId = int64_t{1} << 22;

// A value of the file, short enough for an error line.
std::string Quote(const Json& value) {
  const std::string text = value.dump();
  return text.size() > 80 ? ToValidUtf8(text.substr(0, 80)) + "..." : text;
}

std::string QuoteText(std::string_view text) { return Quote(Json(text)); }

class Parser {
 public:
  Parser(const Json& root, const std::string& where) : root_(root), where_(where) {}

  TokenizerFile Parse() {
    if (!root_.is_object()) Throw(ErrorCode::kInput, "{}: not a JSON object", where_);
    CheckNormalizer();
    CheckDecoder();
    const Json& model = Entry(root_, "model", "");
    CheckModel(model);
    TokenizerFile file{{}, {}, {}, {}, PreTokenizer::FromJson(Entry(root_, "pre_tokenizer", ""), where_)};
    ReadVocabulary(Entry(model, "vocab", "model."), file);
    ReadByteTokens(file);
    ReadMerges(Entry(model, "merges", "model."), file);
    if (const auto it = root_.find("added_tokens"); it != root_.end() && !it->is_null()) ReadAddedTokens(*it, file);
    return file;
  }

 private:
  const Json& Entry(const Json& object, const char* name, const char* prefix) const {
    const auto it = object.is_object() ? object.find(name) : object.end();
    if (it == object.end()) Throw(ErrorCode::kInput, "{}: no \"{}{}\"", where_, prefix, name);
    return *it;
  }

  void CheckNormalizer() const {
    const auto it = root_.find("normalizer");
    if (it == root_.end() || it->is_null()) return;
    const bool empty = it->is_object() && it->value("type", Json()) == "Sequence" && it->value("normalizers", Json()) == Json::array();
    if (!empty) Throw(ErrorCode::kInput, "{}: normalizer {} is not supported (only none)", where_, Quote(*it));
  }

  void CheckDecoder() const {
    const Json& decoder = Entry(root_, "decoder", "");
    if (!decoder.is_object() || decoder.value("type", Json()) != "ByteLevel") {
      Throw(ErrorCode::kInput, "{}: decoder {} is not supported (only ByteLevel)", where_, Quote(decoder));
    }
  }

  void CheckModel(const Json& model) const {
    if (!model.is_object()) Throw(ErrorCode::kInput, "{}: \"model\" is not an object", where_);
    if (const Json type = model.value("type", Json("BPE")); type != "BPE") {
      Throw(ErrorCode::kInput, "{}: model type {} is not supported (only BPE)", where_, Quote(type));
    }
    for (const char* name : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
      const Json value = model.value(name, Json());
      if (value.is_null() || value == false || value == "" || value == 0) continue;
      Throw(ErrorCode::kInput, "{}: model.{} = {} is not supported", where_, name, Quote(value));
    }
  }

  int32_t CheckedId(const Json& id, std::string_view token) const {
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
      Throw(ErrorCode::kInput, "{}: token {} has the id {}, not an integer from 0 to {}", where_, QuoteText(token), Quote(id), kMaxTokenId);
    }
    return id.get<int32_t>();
  }

  // Gives the token its id and the bytes that it decodes to.
  void AddToken(int32_t id, std::string_view name, TokenizerFile& file) {
    const auto index = static_cast<size_t>(id);
    if (index >= file.token_bytes.size()) file.token_bytes.resize(index + 1);
    if (!file.token_bytes[index].empty()) Throw(ErrorCode::kInput, "{}: id {} stands for two tokens, one is {}", where_, id, QuoteText(name));
    file.token_bytes[index] = reader_.DecodedBytes(name);
    ids_.emplace(name, id);
  }

  void ReadVocabulary(const Json& vocabulary, TokenizerFile& file) {
    if (!vocabulary.is_object()) Throw(ErrorCode::kInput, "{}: \"model.vocab\" is not an object", where_);
    ids_.reserve(vocabulary.size());
    for (const auto& [name, id] : vocabulary.items()) {
      if (name.empty()) Throw(ErrorCode::kInput, "{}: model.vocab holds an empty token", where_);
      AddToken(CheckedId(id, name), name, file);
    }
  }

  void ReadByteTokens(TokenizerFile& file) const {
    for (size_t b = 0; b < 256; ++b) {
      const std::string name = BytesToStandIns(std::string(1, static_cast<char>(b)));
      const auto it = ids_.find(name);
      if (it == ids_.end()) Throw(ErrorCode::kInput, "{}: model.vocab has no token {} for the byte {}", where_, QuoteText(name), b);
      file.byte_ids[b] = it->second;
    }
  }

  int32_t Find(std::string_view name, size_t rank) const {
    const auto it = ids_.find(name);
    if (it == ids_.end()) Throw(ErrorCode::kInput, "{}: merge {} needs the token {}, which is not in model.vocab", where_, rank, QuoteText(name));
    return it->second;
  }

  std::pair<std::string_view, std::string_view> Parts(const Json& merge, size_t rank) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    }
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) return {text.substr(0, space), text.substr(space + 1)};
    }
    Throw(ErrorCode::kInput, "{}: merge {} is {}, neither \"a b\" nor [\"a\", \"b\"]", where_, rank, Quote(merge));
  }

  void ReadMerges(const Json& merges, TokenizerFile& file) const {
    if (!merges.is_array()) Throw(ErrorCode::kInput, "{}: \"model.merges\" is not an array", where_);
    file.merges.reserve(merges.size());
    std::string joined;
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const auto [left, right] = Parts(merges[rank], rank);
      joined.assign(left).append(right);
      file.merges.push_back({Find(left, rank), Find(right, rank), Find(joined, rank)});
    }
  }

  bool Flag(const Json& token, const char* name) const {
    const Json value = token.value(name, Json(false));
    if (!value.is_boolean()) Throw(ErrorCode::kInput, "{}: added token {}: \"{}\" is not true or false", where_, Quote(token), name);
    return value.get<bool>();
  }

  void ReadAddedTokens(const Json& tokens, TokenizerFile& file) {
    if (!tokens.is_array()) Throw(ErrorCode::kInput, "{}: \"added_tokens\" is not an array", where_);
    for (const Json& token : tokens) {
      const Json content = token.is_object() ? token.value("content", Json()) : Json();
      if (!content.is_string() || content == "") Throw(ErrorCode::kInput, "{}: added token {} has no content", where_, Quote(token));
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (Flag(token, name)) Throw(ErrorCode::kInput, "{}: added token {}: {} is not supported", where_, Quote(content), name);
      }
      const std::string& name = content.get_ref<const std::string&>();
      const int32_t id = CheckedId(token.value("id", Json()), name);
      const auto known = ids_.find(name);
      if (known == ids_.end()) {
        AddToken(id, name, file);
      } else if (known->second != id) {
        Throw(ErrorCode::kInput, "{}: token {} has two ids, {} and {}", where_, QuoteText(name), known->second, id);
      }
      file.added.push_back({id, name, Flag(token, "special"), Flag(token, "normalized")});
    }
  }

  const Json& root_;
  const std::string& where_;
  StandInReader reader_;
  std::unordered_map<std::string_view, int32_t> ids_;  // keys live in root_
};

std::string TokenName(const Json& config, const char* name, const std::string& where) {
  const Json entry = config.value(name, Json());
  if (entry.is_null()) return "";
  const Json content = entry.is_object() ? entry.value("content", Json()) : entry;
  if (!content.is_string()) Throw(ErrorCode::kInput, "{}: \"{}\" is {}, not a token", where, name, Quote(entry));
  return content.get<std::string>();
}

}  // namespace

TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& where) {
  const Json root = ParseJson(text, where);
  return Parser(root, where).Parse();
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
  if (!add.is_boolean() && !add.is_null()) Throw(ErrorCode::kInput, "{}: \"add_bos_token\" is {}, not true or false", where, Quote(add));
  config.add_bos_token = add == true;
  return config;
}

}  // namespace fathom
