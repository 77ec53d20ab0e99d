#include "fathom/checkpoint/orbax/key_store.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/checkpoint/orbax/ocdbt.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

// A folder per array; the key is the path below root.
class FolderStore : public KeyStore {
 public:
  explicit FolderStore(const fs::path& items) : KeyStore(items) {}

  std::vector<std::string> KeysIn(const std::string& folder) const override {
    std::vector<std::string> keys;
    for (const auto& entry : fs::recursive_directory_iterator(root() / folder, fs::directory_options::skip_permission_denied)) {
      if (entry.is_regular_file() && entry.path().parent_path() != root())
        keys.push_back(entry.path().lexically_relative(root()).generic_string());
    }
    std::ranges::sort(keys);
    return keys;
  }
  std::optional<StoredValue> Find(const std::string& key) const override {
    const fs::path path = root() / key;
    std::error_code failed;
    const uint64_t size = fs::file_size(path, failed);
    if (failed) return std::nullopt;
    return StoredValue{"", path, 0, size};
  }
};

}  // namespace

std::shared_ptr<const InputFile> InputFiles::Open(const fs::path& path) {
  const std::scoped_lock lock(mutex_);
  auto& file = files_[path];
  if (file == nullptr) file = std::make_shared<InputFile>(path);
  return file;
}

std::unique_ptr<KeyStore> KeyStore::Open(const fs::path& items) {
  if (fs::exists(items / kOcdbtManifest)) return std::make_unique<OcdbtStore>(items);
  return std::make_unique<FolderStore>(items);
}

void KeyStore::RequireWhole(const StoredValue& value) const {
  if (value.file.empty()) return;
  const uint64_t size = files_.Open(value.file)->size();
  if (value.offset > size || value.length > size - value.offset) {
    Throw(ErrorCode::kInput, "{}: has {} bytes, a value lies at {} + {}: truncated", value.file.string(), size, value.offset, value.length);
  }
}

std::string KeyStore::Read(const StoredValue& value, uint64_t limit) const {
  if (value.length > limit)
    Throw(ErrorCode::kInput, "{}: a value of {} bytes where at most {} make sense", (root_ / value.file).string(), value.length, limit);
  if (value.file.empty()) return value.bytes;
  RequireWhole(value);
  std::string bytes(static_cast<size_t>(value.length), '\0');
  files_.Open(value.file)->ReadAt(value.offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

void KeyStore::ReadAt(const StoredValue& value, uint64_t offset, std::span<std::byte> out) const {
  FATHOM_CHECK(offset <= value.length && out.size() <= value.length - offset, "bytes {} + {} of {}", offset, out.size(), value.length);
  if (out.empty()) return;
  if (value.file.empty()) {
    std::memcpy(out.data(), value.bytes.data() + offset, out.size());
  } else {
    files_.Open(value.file)->ReadAt(value.offset + offset, out);
  }
}

}  // namespace fathom
