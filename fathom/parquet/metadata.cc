#include "fathom/parquet/metadata.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "fathom/parquet/thrift.h"

namespace fathom {
namespace {

using Type = ThriftReader::Type;
constexpr int kMaxSchemaDepth = 32;

struct SchemaElement {
  std::string name;
  std::optional<int64_t> type;
  int64_t repetition = 0, children = 0, converted = -1;
  int64_t logical = -1;  // the id of the union's member
};

bool Get(ThriftReader& in, Type type, int64_t* out) {
  *out = in.Int(type);
  return true;
}

// The member of a union that is set.
bool Member(ThriftReader& in, Type type, int64_t* out) {
  in.Require(type, ThriftReader::kStruct);
  in.Struct([&](int64_t id, Type) {
    *out = id;
    return false;
  });
  return true;
}

SchemaElement ReadElement(ThriftReader& in) {
  SchemaElement e;
  in.Struct([&](int64_t id, Type type) {
    switch (id) {
      case 1:
        e.type = in.Int(type);
        return true;
      case 3:
        return Get(in, type, &e.repetition);
      case 4:
        e.name = in.Text(type);
        return true;
      case 5:
        return Get(in, type, &e.children);
      case 6:
        return Get(in, type, &e.converted);
      case 10:
        return Member(in, type, &e.logical);
      default:
        return false;
    }
  });
  return e;
}

// converted and logical types: 3 and 3 a list; 1, 2 and 2 a map; 5 and 5 a decimal.
ParquetNode::Kind GroupKind(const SchemaElement& e) {
  if (e.converted == 3 || e.logical == 3) return ParquetNode::kList;
  return e.converted == 1 || e.converted == 2 || e.logical == 2 ? ParquetNode::kMap : ParquetNode::kStruct;
}

class SchemaBuilder {
 public:
  SchemaBuilder(const std::vector<SchemaElement>& elements, const std::string& where) : elements_(elements), where_(where) {}

  ParquetNode Root() {
    ParquetNode root = Next(0, 0, 0);
    if (at_ != elements_.size() || root.kind == ParquetNode::kLeaf) Fail("the schema is no tree");
    return root;
  }

 private:
  ParquetNode Next(int definition, int repetition, int depth) {
    if (at_ >= elements_.size() || depth > kMaxSchemaDepth) Fail("the schema ends early, or is nested too deeply");
    const bool is_root = at_ == 0;
    const SchemaElement& e = elements_[at_++];
    if (e.repetition < 0 || e.repetition > 2) Fail("an unknown repetition in the schema");
    ParquetNode node{.name = e.name, .leaf = leaves_};
    if (!is_root) node.repetition = static_cast<ParquetNode::Repetition>(e.repetition);
    node.max_definition = definition + (node.repetition != ParquetNode::kRequired ? 1 : 0);
    node.max_repetition = repetition + (node.repetition == ParquetNode::kRepeated ? 1 : 0);
    if (e.type) {
      Leaf(e, node);
    } else {
      node.kind = GroupKind(e);
      for (int64_t i = 0; i < e.children; ++i) node.children.push_back(Next(node.max_definition, node.max_repetition, depth + 1));
      CheckGroup(node);
    }
    node.leaves = leaves_ - node.leaf;
    return node;
  }

  void Leaf(const SchemaElement& e, ParquetNode& node) {
    if (*e.type < 0 || *e.type > 7 || e.children > 0) Fail("an unknown type in the schema");
    node.type = static_cast<ParquetType>(*e.type);
    node.is_unsigned = e.converted >= 11 && e.converted <= 14;
    node.is_decimal = e.converted == 5 || e.logical == 5;
    ++leaves_;
  }

  void CheckGroup(ParquetNode& node) const {
    if (node.children.empty()) Fail("a group without members in the schema");
    const bool one_repeated = node.children.size() == 1 && node.children[0].repetition == ParquetNode::kRepeated;
    if (node.kind == ParquetNode::kMap && (!one_repeated || node.children[0].children.size() != 2)) node.kind = ParquetNode::kStruct;
    if (node.kind == ParquetNode::kList && !one_repeated) Fail("a list of a form that is not known");
  }

  [[noreturn]] void Fail(const char* what) const { Throw(ErrorCode::kInput, "{}: {}", where_, what); }

  const std::vector<SchemaElement>& elements_;
  const std::string& where_;
  size_t at_ = 0, leaves_ = 0;
};

// Without the place of its bytes: first pages and lengths are given apart.
ParquetChunk ReadChunk(ThriftReader& in, uint64_t file_size, const std::string& where) {
  ParquetChunk chunk;
  int64_t data = -1, dictionary = -1, length = -1, codec = 0, physical = -1;
  bool elsewhere = false;
  in.Struct([&](int64_t id, Type type) {
    elsewhere |= id == 1;
    if (id != 3) return false;
    in.Require(type, ThriftReader::kStruct);
    in.Struct([&](int64_t field, Type t) {
      if (field == 1) return Get(in, t, &physical);
      if (field == 4) return Get(in, t, &codec);
      if (field == 5) return Get(in, t, &chunk.values);
      if (field == 7) return Get(in, t, &length);
      if (field == 9) return Get(in, t, &data);
      return field == 11 && Get(in, t, &dictionary);
    });
    return true;
  });
  if (elsewhere || length < 0) Throw(ErrorCode::kInput, "{}: a column is encrypted or kept in another file", where);
  chunk.begin = dictionary > 0 ? std::min(data, dictionary) : data;
  const auto size = static_cast<int64_t>(file_size);
  if (chunk.begin < 4 || length > size || chunk.begin > size - length || chunk.values < 0 || codec < 0 || codec > 7 || physical < 0 ||
      physical > 7)
    Throw(ErrorCode::kInput, "{}: a column lies outside the file: damaged or cut off", where);
  chunk.end = chunk.begin + length;
  chunk.codec = static_cast<ParquetCodec>(codec);
  chunk.type = static_cast<ParquetType>(physical);
  return chunk;
}

ParquetRowGroup ReadGroup(ThriftReader& in, uint64_t file_size, const std::string& where) {
  ParquetRowGroup group;
  in.Struct([&](int64_t id, Type type) {
    if (id == 3) return Get(in, type, &group.rows);
    if (id != 1) return false;
    in.List(type, ThriftReader::kStruct, [&] { group.chunks.push_back(ReadChunk(in, file_size, where)); });
    return true;
  });
  return group;
}

}  // namespace

ParquetMetadata ParseParquetFooter(std::string_view footer, uint64_t file_size, const std::string& where) {
  ThriftReader in(footer, where + ": its footer is damaged");
  std::vector<SchemaElement> elements;
  ParquetMetadata metadata;
  in.Struct([&](int64_t id, Type type) {
    if (id == 2) in.List(type, ThriftReader::kStruct, [&] { elements.push_back(ReadElement(in)); });
    if (id == 4) in.List(type, ThriftReader::kStruct, [&] { metadata.groups.push_back(ReadGroup(in, file_size, where)); });
    return id == 2 || id == 4;
  });
  metadata.root = SchemaBuilder(elements, where).Root();
  for (const ParquetRowGroup& group : metadata.groups) {
    if (group.rows < 0 || group.chunks.size() != metadata.root.leaves)
      Throw(ErrorCode::kInput, "{}: its row groups do not fit its schema", where);
  }
  return metadata;
}

ParquetPage ParseParquetPage(std::string_view bytes, const std::string& where) {
  ThriftReader in(bytes, where);
  ParquetPage page;
  int64_t kind = -1, encoding = 0, definition_levels = 3, repetition_levels = 3;
  const auto data = [&](int64_t id, Type type) {
    if (id == 1) return Get(in, type, &page.values);
    if (id == 2) return Get(in, type, &encoding);
    if (id == 3) return Get(in, type, &definition_levels);
    return id == 4 && Get(in, type, &repetition_levels);
  };
  const auto dictionary = [&](int64_t id, Type type) {
    if (id == 1) return Get(in, type, &page.values);
    return id == 2 && Get(in, type, &encoding);
  };
  const auto data2 = [&](int64_t id, Type type) {
    if (id == 1) return Get(in, type, &page.values);
    if (id == 4) return Get(in, type, &encoding);
    if (id == 5) return Get(in, type, &page.definition_bytes);
    if (id == 6) return Get(in, type, &page.repetition_bytes);
    if (id == 7) page.compressed = in.Bool(type);
    return id == 7;
  };
  in.Struct([&](int64_t id, Type type) {
    if (id == 1) return Get(in, type, &kind);
    if (id == 2) return Get(in, type, &page.bytes);
    if (id == 3) return Get(in, type, &page.stored_bytes);
    if (id != 5 && id != 7 && id != 8) return false;
    in.Require(type, ThriftReader::kStruct);
    if (id == 5) in.Struct(data);
    if (id == 7) in.Struct(dictionary);
    if (id == 8) in.Struct(data2);
    return true;
  });
  page.header_bytes = in.used();
  const bool sizes =
      page.bytes >= 0 && page.stored_bytes >= 0 && page.values >= 0 && page.definition_bytes >= 0 && page.repetition_bytes >= 0;
  if (kind < 0 || kind > 3 || encoding < 0 || encoding > 9 || !sizes) Throw(ErrorCode::kInput, "{}: not a page", where);
  page.kind = static_cast<ParquetPage::Kind>(kind);
  page.encoding = static_cast<ParquetEncoding>(encoding);
  if (definition_levels != 3 || repetition_levels != 3) page.level_encoding = ParquetEncoding::kBitPacked;
  return page;
}

}  // namespace fathom
