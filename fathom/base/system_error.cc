#include "fathom/base/system_error.h"

#include <algorithm>
#include <cerrno>

namespace fathom {

ErrorCode CodeOfErrno(int error) {
  constexpr int kSpent[] = {ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EFBIG, EIO};
  return std::ranges::count(kSpent, error) > 0 ? ErrorCode::kResource : ErrorCode::kInput;
}

}  // namespace fathom
