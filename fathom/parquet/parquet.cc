#include "fathom/parquet/parquet.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/zstd.h"

namespace fathom {
namespace {

constexpr std::string_view kMark = "PAR1";
constexpr size_t kTailBytes = 8;  // length of the footer, mark
constexpr uint64_t kMostInMemory = uint64_t{8} << 30;

ParquetBytes MappedBytes(const std::filesystem::path& path) {
  const auto file = std::make_shared<InputFile>(path);
  return {path.string(), file->size(), [file](uint64_t offset, std::span<std::byte> out) { file->ReadAt(offset, out); }};
}

ParquetBytes DecompressedBytes(const std::filesystem::path& path) {
  const auto file = MappedFile::Open(path);
  const auto content = std::make_shared<std::string>(ZstdDecompress(file->bytes(), kMostInMemory, path.string()));
  return {path.string(), content->size(), [content, path](uint64_t offset, std::span<std::byte> out) {
            if (offset > content->size() || out.size() > content->size() - offset)
              Throw(ErrorCode::kInput, "{}: ends early", path.string());
            std::memcpy(out.data(), content->data() + offset, out.size());
          }};
}

std::string ReadFooter(const ParquetBytes& bytes) {
  std::string tail(kTailBytes, '\0');
  if (bytes.size < kMark.size() + kTailBytes) Throw(ErrorCode::kInput, "{}: too short for a Parquet file", bytes.where);
  bytes.read(bytes.size - kTailBytes, std::as_writable_bytes(std::span(tail)));
  uint32_t length = 0;
  std::memcpy(&length, tail.data(), sizeof length);
  if (tail.substr(4) == "PARE") Throw(ErrorCode::kInput, "{}: an encrypted Parquet file, which is not read", bytes.where);
  if (tail.substr(4) != kMark || length > bytes.size - kTailBytes - kMark.size())
    Throw(ErrorCode::kInput, "{}: a Parquet file that is cut off or damaged: its end has no footer; download it again", bytes.where);
  std::string footer(length, '\0');
  bytes.read(bytes.size - kTailBytes - length, std::as_writable_bytes(std::span(footer)));
  return footer;
}

void Quote(std::string_view text, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20) {
      out.append("\\u00").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    } else {
      out += c;
    }
  }
  out += '"';
}

void WriteValue(const ParquetNode& leaf, const ParquetValue& value, std::string& out) {
  switch (leaf.type) {
    case ParquetType::kBytes:
      return Quote(value.text, out);
    case ParquetType::kBoolean:
      out += value.integer != 0 ? "true" : "false";
      return;
    case ParquetType::kFloat:
    case ParquetType::kDouble:
      out += std::isfinite(value.real) ? fmt::format("{}", value.real) : "null";
      return;
    default:
      out += leaf.is_unsigned ? fmt::format("{}", static_cast<uint64_t>(value.integer)) : fmt::format("{}", value.integer);
  }
}

// What an entry of a list holds: the repeated group's only member, or itself in files of older writers.
const ParquetNode* ElementOf(const ParquetNode& list) {
  const ParquetNode& repeated = list.children[0];
  const bool is_element = repeated.children.size() != 1 || repeated.name == "array" || repeated.name == list.name + "_tuple";
  return is_element ? nullptr : &repeated.children[0];
}

std::vector<const ParquetNode*> Pointers(const std::vector<ParquetNode>& nodes) {
  std::vector<const ParquetNode*> pointers;
  for (const ParquetNode& node : nodes) pointers.push_back(&node);
  return pointers;
}

const ParquetNode& LeafAt(const ParquetNode& node, size_t leaf) {
  if (node.kind == ParquetNode::kLeaf) return node;
  const auto child = std::ranges::find_if(node.children, [&](const ParquetNode& c) { return leaf >= c.leaf && leaf < c.leaf + c.leaves; });
  return LeafAt(*child, leaf);
}

}  // namespace

std::shared_ptr<const ParquetFile> ParquetFile::Open(const std::filesystem::path& path, bool within_zstd) {
  auto file = std::make_shared<ParquetFile>();
  file->bytes_ = within_zstd ? DecompressedBytes(path) : MappedBytes(path);
  file->metadata_ = ParseParquetFooter(ReadFooter(file->bytes_), file->bytes_.size, path.string());
  return file;
}

int64_t ParquetFile::rows() const {
  int64_t rows = 0;
  for (const ParquetRowGroup& group : metadata_.groups) rows += group.rows;
  return rows;
}

ParquetRows::ParquetRows(std::shared_ptr<const ParquetFile> file, size_t group, const std::vector<std::string>& columns)
    : file_(std::move(file)), left_(file_->metadata().groups.at(group).rows) {
  const ParquetNode& root = file_->metadata().root;
  by_leaf_.resize(root.leaves);
  std::vector<std::string> names;
  for (const ParquetNode& node : root.children) {
    names.push_back(node.name);
    if (std::ranges::find(columns, node.name) == columns.end()) continue;
    columns_.push_back(&node);
    for (size_t leaf = node.leaf; leaf < node.leaf + node.leaves; ++leaf)
      by_leaf_[leaf] = &leaves_.emplace_back(file_->bytes(), LeafAt(node, leaf), file_->metadata().groups[group].chunks[leaf]);
  }
  if (columns_.empty()) {
    Throw(ErrorCode::kInput, "{}: no column {}; it has {}; train_data_columns names what is read", file_->bytes().where,
          fmt::join(columns, ", "), fmt::join(names, ", "));
  }
}

bool ParquetRows::Next(std::string* json) {
  if (left_ == 0) return false;
  --left_;
  json->clear();
  WriteMembers(columns_, *json);
  for (LeafReader& leaf : leaves_) {
    if (left_ == 0 ? !leaf.AtEnd() : leaf.Peek().repetition != 0)
      Throw(ErrorCode::kInput, "{}: damaged: its columns have different numbers of rows", file_->bytes().where);
  }
  return true;
}

void ParquetRows::SkipEntry(const ParquetNode& node) {
  for (size_t leaf = node.leaf; leaf < node.leaf + node.leaves; ++leaf) by_leaf_[leaf]->Advance();
}

void ParquetRows::Write(const ParquetNode& node, std::string& out) {
  if (node.repetition == ParquetNode::kRepeated) return WriteList(node, nullptr, out);
  if (!IsNull(node)) return WriteContent(node, out);
  out += "null";
  SkipEntry(node);
}

void ParquetRows::WriteContent(const ParquetNode& node, std::string& out) {
  if (node.kind == ParquetNode::kLeaf) {
    WriteValue(node, First(node).Peek().value, out);
    First(node).Advance();
  } else if (node.kind == ParquetNode::kList) {
    WriteList(node.children[0], ElementOf(node), out);
  } else if (node.kind == ParquetNode::kMap) {
    WriteMap(node.children[0], out);
  } else {
    WriteMembers(Pointers(node.children), out);
  }
}

void ParquetRows::WriteMembers(const std::vector<const ParquetNode*>& members, std::string& out) {
  const char* separator = "{";
  for (const ParquetNode* member : members) {
    const bool optional = member->repetition == ParquetNode::kOptional;
    if (optional && member->name != "content" && IsNull(*member)) {
      SkipEntry(*member);
      continue;
    }
    out += separator;
    Quote(member->name, out);
    out += ": ";
    Write(*member, out);
    separator = ", ";
  }
  out += *separator == '{' ? "{}" : "}";
}

// One entry stands for an empty list; a further item of this list has its repetition level.
template <class F>
void ParquetRows::ForEachItem(const ParquetNode& repeated, const F& write_item) {
  LeafReader& first = First(repeated);
  if (IsNull(repeated)) return SkipEntry(repeated);
  do {
    write_item();
  } while (!first.AtEnd() && first.Peek().repetition == repeated.max_repetition);
}

void ParquetRows::WriteList(const ParquetNode& repeated, const ParquetNode* element, std::string& out) {
  out += '[';
  const size_t begin = out.size();
  ForEachItem(repeated, [&] {
    if (out.size() > begin) out += ", ";
    element != nullptr ? Write(*element, out) : WriteContent(repeated, out);
  });
  out += ']';
}

// Keys that are no texts are written as texts.
void ParquetRows::WriteMap(const ParquetNode& entries, std::string& out) {
  out += '{';
  const size_t begin = out.size();
  ForEachItem(entries, [&] {
    if (out.size() > begin) out += ", ";
    std::string key;
    Write(entries.children[0], key);
    key.starts_with('"') ? void(out += key) : Quote(key, out);
    out += ": ";
    Write(entries.children[1], out);
  });
  out += '}';
}

}  // namespace fathom
