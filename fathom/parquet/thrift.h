// Thrift's compact protocol, as far as Parquet's headers use it. A hundred lines instead of libthrift and generated code: the format is
// frozen, and sizes are checked against the bytes that are there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fathom/base/error.h"

namespace fathom {

class ThriftReader {
 public:
  enum Type : uint8_t { kStop, kTrue, kFalse, kByte, kI16, kI32, kI64, kDouble, kBinary, kList, kSet, kMap, kStruct };

  // where begins every message. All functions throw Error(kInput): bytes end early, another type than is asked for.
  ThriftReader(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}
  size_t used() const { return at_; }

  // Calls on_field(id, type) for each field of a struct; it reads the field, or returns false to have it skipped.
  template <class F>
  void Struct(const F& on_field) {
    if (++depth_ > kMaxDepth) Fail("nested too deeply");
    for (int64_t id = 0;;) {
      const uint8_t head = Byte();
      const auto type = static_cast<Type>(head & 15);
      if (type == kStop) break;
      id = head >> 4 != 0 ? id + (head >> 4) : ZigZag();
      if (!on_field(id, type)) Skip(type);
    }
    --depth_;
  }
  // Calls on_item() for each item of a list of structs, integers or texts.
  template <class F>
  void List(Type type, Type items, const F& on_item) {
    Require(type, kList);
    Type found;
    const uint64_t size = ListHead(&found);
    if (size > 0) Require(found, items);
    for (uint64_t i = 0; i < size; ++i) on_item();
  }
  int64_t Int(Type type) {
    if (type != kI16 && type != kI32 && type != kI64) Fail("not an integer");
    return ZigZag();
  }
  bool Bool(Type type) const {
    if (type != kTrue && type != kFalse) Fail("not a boolean");
    return type == kTrue;
  }
  std::string_view Text(Type type) {
    Require(type, kBinary);
    return Take(VarInt());
  }
  void Require(Type found, Type wanted) const {
    if (found != wanted) Fail("a field of another type");
  }
  void Skip(Type type);

 private:
  static constexpr int kMaxDepth = 32;
  uint8_t Byte() { return static_cast<uint8_t>(Take(1)[0]); }
  std::string_view Take(uint64_t n) {
    if (n > bytes_.size() - at_) Fail("ends early");
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }
  uint64_t VarInt();
  int64_t ZigZag() {
    const uint64_t n = VarInt();
    return static_cast<int64_t>(n >> 1) ^ -static_cast<int64_t>(n & 1);
  }
  // Of a list or set; an item takes a byte at least.
  uint64_t ListHead(Type* items);
  [[noreturn]] void Fail(const char* what) const { Throw(ErrorCode::kInput, "{}: {}", where_, what); }

  std::string_view bytes_;
  std::string where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace fathom
