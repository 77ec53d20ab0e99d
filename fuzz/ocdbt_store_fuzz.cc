// A whole OCDBT database of any content, through its files: an Error, or keys whose values can be asked for. The input is a list of bodies,
// two bytes of length before each: the manifest's, then those of the nodes in d/tree, one behind the other. Each is put into a frame whose
// length and checksum are right.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/byte_stream.h"
#include "fathom/checkpoint/orbax/ocdbt.h"

namespace {

using namespace fathom;
namespace fs = std::filesystem;

constexpr uint64_t kMaxValue = 1 << 16;
constexpr uint32_t kManifest = 0x0cdb3a2a, kNode = 0x0cdb20de;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Of this process, removed at its end.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("fathom-fuzz-" + std::to_string(::getpid()))) { fs::create_directories(path_ / "d"); }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void Put(const std::string& name, const std::string& bytes) const { std::ofstream(path_ / name, std::ios::binary) << bytes; }

 private:
  fs::path path_;
};

std::string Framed(uint32_t magic, std::string_view body) {
  ByteWriter out;
  out.U32Big(magic);
  out.U64(4 + 8 + 1 + 1 + body.size() + 4);
  out.Varint(0);
  out.Varint(0);
  out.Text(body);
  out.U32(Crc32c(out.span()));
  return out.bytes();
}

std::string_view NextBody(std::string_view& input) {
  if (input.size() < 2) return {};
  const size_t length = static_cast<uint8_t>(input[0]) + 256u * static_cast<uint8_t>(input[1]);
  const std::string_view body = input.substr(2, length);
  input.remove_prefix(2 + body.size());
  return body;
}

void WriteDatabase(const Folder& folder, std::string_view input) {
  folder.Put(kOcdbtManifest, Framed(kManifest, NextBody(input)));
  std::string tree;
  while (input.size() >= 2) tree += Framed(kNode, NextBody(input));
  folder.Put("d/tree", tree);
}

void ReadDatabase(const fs::path& root) {
  const OcdbtStore store(root);
  const auto keys = store.Keys();
  Require(keys.size() == (store.manifest().versions.back().empty() ? 0 : store.manifest().versions.back().statistics.num_keys));
  for (const std::string& key : keys) {
    const auto value = store.Find(key);
    Require(value.has_value());
    try {
      Require(store.Read(*value, kMaxValue).size() == value->length);
    } catch (const Error& e) {
      Require(e.code() == ErrorCode::kInput);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  WriteDatabase(folder, {reinterpret_cast<const char*>(data), size});
  try {
    ReadDatabase(folder.path());
  } catch (const Error& e) {
    Require(e.code() == ErrorCode::kInput);
  }
  return 0;
}
