#include "cuda/emulate/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace verglas::emulate {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStack = 1024 * 1024;  // redzones around every local
#else
constexpr std::size_t kStack = 128 * 1024;
#endif

#if defined(__x86_64__)
// Saves what the System V ABI asks a callee to preserve, and changes stacks: swapcontext without its two system calls.
extern "C" void verglas_emulate_switch(void** save, void* load);
asm(R"(
.text
.hidden verglas_emulate_switch
.globl verglas_emulate_switch
.type verglas_emulate_switch, @function
verglas_emulate_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size verglas_emulate_switch, .-verglas_emulate_switch
)");
#endif

}  // namespace

struct Fiber::Impl {
  void (*entry)(void*);
  void* argument;
  unsigned char* memory;
  std::size_t bytes, guard;
#if defined(__x86_64__)
  void* inside = nullptr;
  void* outside = nullptr;
#else
  ucontext_t inside, outside;
#endif
  void* fake_inside = nullptr;
  void* fake_outside = nullptr;
  const void* outside_bottom = nullptr;
  std::size_t outside_bytes = 0;

  // The sanitizer is told of every change of stacks.
  void before(void** keep, const void* bottom, std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(keep, bottom, size);
#else
    (void)keep, (void)bottom, (void)size;
#endif
  }
  void after(void* keep, const void** bottom, std::size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(keep, bottom, size);
#else
    (void)keep, (void)bottom, (void)size;
#endif
  }
};

void Fiber::start(Fiber* self) {
  self->impl_->after(nullptr, &self->impl_->outside_bottom, &self->impl_->outside_bytes);
  self->impl_->entry(self->impl_->argument);
}

#if defined(__x86_64__)
namespace {
// The first "return" of a fiber lands here; its frame holds the fiber where a return address would be looked for.
extern "C" void verglas_emulate_enter();
asm(R"(
.text
.hidden verglas_emulate_enter
.globl verglas_emulate_enter
.type verglas_emulate_enter, @function
verglas_emulate_enter:
  movq %rbx, %rdi
  call *%r12
  ud2
.size verglas_emulate_enter, .-verglas_emulate_enter
)");
}  // namespace
#endif

Fiber::Fiber(void (*entry)(void*), void* argument) : impl_(new Impl) {
  impl_->entry = entry;
  impl_->argument = argument;
  impl_->guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  impl_->bytes = kStack + impl_->guard;
  void* memory =
      mmap(nullptr, impl_->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  impl_->memory = static_cast<unsigned char*>(memory);
  (void)mprotect(memory, impl_->guard, PROT_NONE);  // an overflow stops here instead of in a neighbour
#if defined(__x86_64__)
  // Six registers and a return address, as verglas_emulate_switch pops them: r15 r14 r13 r12 rbx rbp.
  auto* top = reinterpret_cast<std::uintptr_t*>(impl_->memory + impl_->bytes) - 2;
  *--top = reinterpret_cast<std::uintptr_t>(&verglas_emulate_enter);
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(this);
  *--top = reinterpret_cast<std::uintptr_t>(&Fiber::start);
  for (int i = 0; i < 3; ++i) *--top = 0;
  impl_->inside = top;
#else
  getcontext(&impl_->inside);
  impl_->inside.uc_stack.ss_sp = impl_->memory + impl_->guard;
  impl_->inside.uc_stack.ss_size = kStack;
  impl_->inside.uc_link = nullptr;
  // makecontext passes ints; a pointer travels as two.
  const auto address = reinterpret_cast<std::uint64_t>(this);
  void (*halves)(unsigned, unsigned) = [](unsigned high, unsigned low) {
    start(reinterpret_cast<Fiber*>(static_cast<std::uint64_t>(high) << 32 | low));
  };
  makecontext(&impl_->inside, reinterpret_cast<void (*)()>(halves), 2, static_cast<unsigned>(address >> 32),
              static_cast<unsigned>(address));
#endif
}

Fiber::~Fiber() {
  (void)munmap(impl_->memory, impl_->bytes);
  delete impl_;
}

void Fiber::resume() {
  Impl& i = *impl_;
  i.before(&i.fake_outside, i.memory + i.guard, kStack);
#if defined(__x86_64__)
  verglas_emulate_switch(&i.outside, i.inside);
#else
  swapcontext(&i.outside, &i.inside);
#endif
  i.after(i.fake_outside, nullptr, nullptr);
}

void Fiber::give_way() {
  Impl& i = *impl_;
  i.before(&i.fake_inside, i.outside_bottom, i.outside_bytes);
#if defined(__x86_64__)
  verglas_emulate_switch(&i.inside, i.outside);
#else
  swapcontext(&i.inside, &i.outside);
#endif
  i.after(i.fake_inside, &i.outside_bottom, &i.outside_bytes);
}

}  // namespace verglas::emulate
