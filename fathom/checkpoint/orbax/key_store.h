// Where an Orbax checkpoint keeps the bytes of its arrays: an OCDBT database, or plain files. The keys are the same strings in both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/base/file.h"

namespace fathom {

// Files opened once and shared by threads. Throws as InputFile.
class InputFiles {
 public:
  std::shared_ptr<const InputFile> Open(const std::filesystem::path& path);

 private:
  std::mutex mutex_;
  std::map<std::filesystem::path, std::shared_ptr<const InputFile>> files_;
};

// A value: its bytes, or the part of a file that holds them.
struct StoredValue {
  std::string bytes;  // if file is empty
  std::filesystem::path file;
  uint64_t offset = 0, length = 0;
};

class KeyStore {
 public:
  virtual ~KeyStore() = default;
  // items: the folder with manifest.ocdbt, or with a folder per array. Throws Error(kInput) naming the file that is damaged.
  static std::unique_ptr<KeyStore> Open(const std::filesystem::path& items);

  std::vector<std::string> Keys() const { return KeysIn(""); }
  // Keys that begin with folder and a slash, all if it is empty; ascending.
  virtual std::vector<std::string> KeysIn(const std::string& folder) const = 0;
  virtual std::optional<StoredValue> Find(const std::string& key) const = 0;
  const std::filesystem::path& root() const { return root_; }

  // Throws Error(kInput) unless the value's file has all of it: before memory is set aside for what it claims to be.
  void RequireWhole(const StoredValue& value) const;
  // The whole value; throws Error(kInput): longer than limit, or its file ends before.
  std::string Read(const StoredValue& value, uint64_t limit) const;
  // Part of it.
  void ReadAt(const StoredValue& value, uint64_t offset, std::span<std::byte> out) const;

 protected:
  explicit KeyStore(std::filesystem::path root) : root_(std::move(root)) {}

 private:
  std::filesystem::path root_;
  mutable InputFiles files_;
};

}  // namespace fathom
