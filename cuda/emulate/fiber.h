// A stack of its own that can be left and entered again, on the thread of the host that made it.
#pragma once
#include <cstddef>

namespace verglas::emulate {

class Fiber {
 public:
  /// entry(argument) starts at the first resume() and must never return.
  Fiber(void (*entry)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs the fiber until it gives way; called from outside.
  void resume();
  /// Back to where resume() was called; called from inside.
  void give_way();

 private:
  static void start(Fiber* self);
  struct Impl;
  Impl* impl_;
};

}  // namespace verglas::emulate
