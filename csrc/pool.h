// A team of threads that run one function together, with barriers inside it.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace offramp {

class Pool;
struct Team;

// What a barrier and a loop handed out in chunks need. Each counter has a cache line of its own.
struct Meeting {
  alignas(64) std::atomic<int64_t> next[2][8] = {};  // the next chunk, [loop % 2][0]; a cache line each
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<uint32_t> round{0};
};

// One thread's place in the team, handed to the function being run.
class Worker {
 public:
  int index() const { return index_; }
  int count() const { return count_; }

  // Waits for all threads. What they wrote before is visible after. Spins, then yields.
  void barrier() {
    if (count_ > 1) wait_for_all();
  }

  // Hands out [0, items) in chunks to whichever thread asks next, then waits for all: `body(begin, end)`. Every thread
  // must call it with the same arguments. What is computed must not depend on who computes it.
  template <typename Body>
  void share(int64_t items, int64_t chunk, Body&& body) {
    share_on(items, chunk, body);
    barrier();
  }

  // The same without waiting at the end. A barrier must follow before the next loop.
  template <typename Body>
  void share_on(int64_t items, int64_t chunk, Body&& body) {
    const int64_t chunks = (items + chunk - 1) / chunk;
    const int loop = next_loop();
    // The first chunk is that of the thread's own index, so that a short loop costs no traffic between cores.
    for (int64_t i = index_; i < chunks; i = count_ + take(loop)) {
      const int64_t begin = i * chunk;
      body(begin, items - begin < chunk ? items : begin + chunk);
    }
  }

  // Hands out all of [0, items) in ranges that become shorter towards the end, so that threads end together; then
  // waits.
  template <typename Body>
  void spread(int64_t items, Body&& body) {
    const int loop = next_loop();
    int64_t begin = 0;  // of range `at`; the ranges follow from the number of items, so each thread counts along
    for (int64_t at = 0, mine = index_;; mine = count_ + take(loop)) {
      for (; at < mine && begin < items; ++at) begin += range(items - begin);
      if (begin >= items) break;
      body(begin, begin + range(items - begin));
    }
    barrier();
  }

 private:
  friend struct Team;
  Worker(Meeting* meeting, int index, int count) : meeting_(meeting), index_(index), count_(count) {}
  void wait_for_all();

  // Readies the counter of the next loop: everybody has left the loop before this one, which used it.
  int next_loop() {
    const int loop = static_cast<int>(loops_++ & 1);
    if (index_ == 0) meeting_->next[1 - loop][0].store(0, std::memory_order_relaxed);
    return loop;
  }
  int64_t take(int loop) { return meeting_->next[loop][0].fetch_add(1, std::memory_order_relaxed); }
  int64_t range(int64_t left) const {
    const int64_t share = count_ == 1 ? left : left / (2 * count_);
    return share > 1 ? share : 1;
  }

  Meeting* meeting_;
  int index_;
  int count_;
  uint32_t loops_ = 0;
};

// Threads sleep after spinning for a while without work. The calling thread takes part as index 0, so a pool of one
// starts no thread. One call at a time; a second caller waits. After a fork the child starts threads of its own.
class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }

  // Wakes the threads, so that a call that is about to come finds them spinning.
  void wake();

  // Runs `body(worker)` on every thread and returns when all have. `body` must not throw.
  template <typename Body>
  void run(Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_erased([](void* b, Worker& w) { (*static_cast<Plain*>(b))(w); },
               const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Function = void (*)(void*, Worker&);
  void run_erased(Function function, void* body);
  Team& team();

  int size_;
  std::atomic<Team*> team_{nullptr};
};

}  // namespace offramp
