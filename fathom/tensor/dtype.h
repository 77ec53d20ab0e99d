#pragma once

#include <cstdint>
#include <string_view>

#include "fathom/base/types.h"

namespace fathom {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kF8E8M0, kF64, kI64, kI32, kU32, kI16, kI8, kU8, kBool };

int64_t DTypeSize(DType dtype);           // bytes per element
std::string_view DTypeName(DType dtype);  // safetensors' name: "F32", "BF16", "F8_E4M3" ...

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<F16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<F8E4M3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct DTypeOf<F8E8M0> {
  static constexpr DType value = DType::kF8E8M0;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::kU32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

}  // namespace fathom
