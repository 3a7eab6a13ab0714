// Runs the threads of a block one after the other on fibers: a thread that must wait at a barrier or warp
// collective keeps its stack and gives way. A fiber that never waits runs thread after thread, so kernels
// without barriers cost no switch. Blocks are shared among the host's threads by OpenMP.

#include <deque>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulate/fiber.h"
#include "cuda/emulate/language.h"

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace verglas::emulate {
namespace {

constexpr unsigned char kGuard = 0xA5;
constexpr std::size_t kGuardBytes = 64;

enum class Waits { no, block, warp };

/// What the lanes of a collective deposited; freed by the last that has read it.
struct Deposits {
  std::uint64_t value[32];
  int readers;
};

struct Thread {
  Waits waits = Waits::no;
  bool done = false;
  int fiber = -1;  // where its stack lies, while it waits
  unsigned mask = 0;
  std::uint64_t deposit = 0;
  Deposits* deposits = nullptr;
  int count = 0;
};

/// One thread of the host and the block it runs.
class Worker {
 public:
  void run_block(unsigned threads, unsigned block_number, std::size_t shared_bytes, void (*body)(void*),
                 void* context) {
    body_ = body;
    context_ = context;
    backwards_ = block_number % 2 == 1;
    threads_.assign(threads, Thread());
    started_ = 0;
    alive_ = static_cast<int>(threads);
    arrived_ = counted_ = 0;
    ready_.clear();
    error_ = nullptr;
    prepare_shared(shared_bytes);
    try {
      loop();
    } catch (...) {
      fibers_.clear();  // their stacks are given up as they are
      idle_.clear();
      throw;
    }
    check_shared(shared_bytes);
  }

  int wait_for_block(bool predicate) {
    Thread& t = threads_[current_];
    counted_ += predicate;
    t.waits = Waits::block;
    ++arrived_;
    if (arrived_ == alive_) release_block(current_);
    if (t.waits != Waits::no) give_way();
    return t.count;
  }

  void wait_for_warp(unsigned mask, std::uint64_t deposit, std::uint64_t* values,
                     void (*complete)(const std::uint64_t*)) {
    Thread& t = threads_[current_];
    const int own = static_cast<int>(current_ % 32);
    if (!(mask >> own & 1u))
      throw std::logic_error("a warp collective whose mask leaves out the lane that calls it");
    t.waits = Waits::warp;
    t.mask = mask;
    t.deposit = deposit;
    complete_warp(current_ / 32, mask, complete);
    if (t.waits != Waits::no) give_way();
    Deposits* d = t.deposits;
    std::memcpy(values, d->value, sizeof(d->value));
    t.deposits = nullptr;
    if (--d->readers == 0) delete d;
  }

  unsigned char* shared() { return shared_.get(); }
  int current_lane() const { return static_cast<int>(current_ % 32); }

 private:
  unsigned number(unsigned order) const {
    return backwards_ ? static_cast<unsigned>(threads_.size()) - 1 - order : order;
  }

  void loop() {
    for (;;) {
      if (error_) std::rethrow_exception(error_);
      if (!ready_.empty()) {
        current_ = ready_.front();
        ready_.pop_front();
        set_index();
        resume(threads_[current_].fiber);
      } else if (started_ < threads_.size()) {
        resume(idle_fiber());
      } else if (alive_ == 0) {
        return;
      } else {
        throw std::logic_error(stuck());
      }
    }
  }

  int idle_fiber() {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Worker::enter, this));
      idle_.push_back(static_cast<int>(fibers_.size()) - 1);
    }
    const int fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  void resume(int fiber) {
    running_ = fiber;
    fibers_[fiber]->resume();
  }
  void give_way() {
    threads_[current_].fiber = running_;
    fibers_[running_]->give_way();
  }

  /// A fiber's whole life: takes threads that have not begun, and sleeps when there are none.
  static void enter(void* self) {
    auto* worker = static_cast<Worker*>(self);
    for (;;) {
      while (worker->started_ < worker->threads_.size() && !worker->error_) worker->run_next();
      const int fiber = worker->running_;
      worker->idle_.push_back(fiber);
      worker->fibers_[fiber]->give_way();
    }
  }

  void run_next() {
    current_ = number(static_cast<unsigned>(started_++));
    set_index();
    try {
      body_(context_);
    } catch (...) {
      error_ = std::current_exception();
    }
    threads_[current_].done = true;
    --alive_;
    if (alive_ > 0 && arrived_ == alive_) release_block(threads_.size());
  }

  void set_index() const {
    threadIdx = {current_ % blockDim.x, current_ / blockDim.x % blockDim.y,
                 current_ / (blockDim.x * blockDim.y)};
  }

  /// Lets all go that wait for the block; `self` goes on without a switch.
  void release_block(std::size_t self) {
    const int count = counted_;
    arrived_ = counted_ = 0;
    for (unsigned order = 0; order < threads_.size(); ++order) {
      Thread& t = threads_[number(order)];
      if (t.waits != Waits::block) continue;
      t.waits = Waits::no;
      t.count = count;
      if (number(order) != self) ready_.push_back(number(order));
    }
  }

  void complete_warp(unsigned warp, unsigned mask, void (*complete)(const std::uint64_t*)) {
    const std::size_t first = static_cast<std::size_t>(warp) * 32;
    for (int l = 0; l < 32; ++l) {
      if (!(mask >> l & 1u)) continue;
      if (first + l >= threads_.size())
        throw std::logic_error("a warp collective names a lane beyond the block");
      const Thread& t = threads_[first + l];
      if (t.waits != Waits::warp || t.mask != mask) return;
    }
    auto* d = new Deposits{{}, __builtin_popcount(mask)};
    for (int l = 0; l < 32; ++l)
      if (mask >> l & 1u) d->value[l] = threads_[first + l].deposit;
    if (complete) complete(d->value);
    for (int i = 0; i < 32; ++i) {
      const int l = backwards_ ? 31 - i : i;
      if (!(mask >> l & 1u)) continue;
      Thread& t = threads_[first + l];
      t.waits = Waits::no;
      t.deposits = d;
      if (first + l != current_) ready_.push_back(static_cast<unsigned>(first + l));
    }
  }

  void prepare_shared(std::size_t bytes) {
    if (!shared_ || bytes != shared_bytes_) {
#if defined(__SANITIZE_ADDRESS__)
      shared_.reset(static_cast<unsigned char*>(::operator new(bytes, std::align_val_t(128))));
#else
      shared_.reset(static_cast<unsigned char*>(::operator new(bytes + kGuardBytes, std::align_val_t(128))));
      std::memset(shared_.get() + bytes, kGuard, kGuardBytes);
#endif
      shared_bytes_ = bytes;
    }
    std::memset(shared_.get(), 0xFF, bytes);  // NaN as float and double, -1 as integer
  }

  void check_shared(std::size_t bytes) const {
#if defined(__SANITIZE_ADDRESS__)
    (void)bytes;
#else
    for (std::size_t i = 0; i < kGuardBytes; ++i)
      if (shared_.get()[bytes + i] != kGuard)
        throw std::logic_error("a kernel wrote beyond its " + std::to_string(bytes) +
                               " bytes of dynamic shared memory");
#endif
  }

  std::string stuck() const {
    std::string text = "threads of a block wait for each other in vain:";
    for (std::size_t i = 0, listed = 0; i < threads_.size() && listed < 4; ++i) {
      if (threads_[i].waits == Waits::no) continue;
      ++listed;
      text += " thread " + std::to_string(i);
      text += threads_[i].waits == Waits::block
                  ? " at __syncthreads"
                  : " at a warp collective of mask " + std::to_string(threads_[i].mask);
      text += ";";
    }
    return text + " " + std::to_string(threads_.size() - alive_) + " have ended";
  }

  struct Free {
    void operator()(unsigned char* p) const { ::operator delete(p, std::align_val_t(128)); }
  };
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<int> idle_;
  std::deque<unsigned> ready_;
  std::size_t started_ = 0;
  unsigned current_ = 0;
  int running_ = -1, alive_ = 0, arrived_ = 0, counted_ = 0;
  bool backwards_ = false;
  std::exception_ptr error_;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;
  std::unique_ptr<unsigned char[], Free> shared_;
  std::size_t shared_bytes_ = 0;
};

Worker& worker() {
  static thread_local Worker one;
  return one;
}

}  // namespace

int barrier(bool predicate) { return worker().wait_for_block(predicate); }
void collective(unsigned mask, std::uint64_t deposit, std::uint64_t* values,
                void (*complete)(const std::uint64_t*)) {
  worker().wait_for_warp(mask, deposit, values, complete);
}
unsigned char* dynamic_shared() { return worker().shared(); }
int lane() { return worker().current_lane(); }

void run(dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* context) {
  const long long blocks = static_cast<long long>(grid.x) * grid.y * grid.z;
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) if (blocks > 1)
  for (long long b = 0; b < blocks; ++b) {
    bool failed;
#pragma omp critical(verglas_emulate_error)
    failed = error != nullptr;
    if (failed) continue;
    blockDim = {block.x, block.y, block.z};
    gridDim = {grid.x, grid.y, grid.z};
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / (static_cast<long long>(grid.x) * grid.y))};
    try {
      worker().run_block(block.x * block.y * block.z, static_cast<unsigned>(b), shared_bytes, body, context);
    } catch (...) {
#pragma omp critical(verglas_emulate_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace verglas::emulate
