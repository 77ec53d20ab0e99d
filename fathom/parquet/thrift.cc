#include "fathom/parquet/thrift.h"

namespace fathom {

uint64_t ThriftReader::VarInt() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = Byte();
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  Fail("an integer of more than 64 bits");
}

uint64_t ThriftReader::ListHead(Type* items) {
  const uint8_t head = Byte();
  *items = static_cast<Type>(head & 15);
  const uint64_t size = head >> 4 == 15 ? VarInt() : head >> 4;
  if (size > bytes_.size() - at_) Fail("a list that is longer than the bytes behind it");
  return size;
}

void ThriftReader::Skip(Type type) {
  Type items;
  switch (type) {
    case kTrue:
    case kFalse:
      return;
    case kByte:
      Take(1);
      return;
    case kI16:
    case kI32:
    case kI64:
      VarInt();
      return;
    case kDouble:
      Take(8);
      return;
    case kBinary:
      Take(VarInt());
      return;
    case kList:
    case kSet:
      if (++depth_ > kMaxDepth) Fail("nested too deeply");
      for (uint64_t n = ListHead(&items); n > 0; --n) {
        if (items == kTrue || items == kFalse) Take(1);  // in a list a boolean is a byte
        Skip(items);
      }
      --depth_;
      return;
    case kStruct:
      Struct([](int64_t, Type) { return false; });
      return;
    default:
      Fail("a field of an unknown type");
  }
}

}  // namespace fathom
