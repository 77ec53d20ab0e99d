// A callable passed down a call, without the allocation that std::function may need: it only refers to it.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace fathom {

template <class Signature>
class FunctionRef;

// Valid as long as the callable is: for parameters, not for members.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  FunctionRef() = default;  // empty: must not be called
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, const F&, Args...>) FunctionRef(const F& f)
      : object_(std::addressof(f)),
        call_([](const void* object, Args... args) -> R { return (*static_cast<const F*>(object))(std::forward<Args>(args)...); }) {}

  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }
  explicit operator bool() const { return call_ != nullptr; }

 private:
  const void* object_ = nullptr;
  R (*call_)(const void*, Args...) = nullptr;
};

}  // namespace fathom
