#include "pool.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#define OFFRAMP_POSIX 1
#endif

namespace offramp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 1000;                      // pauses at a barrier before yielding: about 20 us
constexpr std::chrono::microseconds kAwake(100);  // how long a thread looks for work before it sleeps

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void yield() {
#if defined(OFFRAMP_POSIX)
  sched_yield();
#else
  std::this_thread::yield();
#endif
}

// Forks that this process has come from. A child has the memory of its parent's threads, but not the threads.
std::atomic<uint32_t> generation{0};

void count_forks() {
#if defined(OFFRAMP_POSIX)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1); });
  (void)registered;
#endif
}

}  // namespace

void Worker::wait_for_all() {
  Meeting& meeting = *meeting_;
  const uint32_t round = meeting.round.load(std::memory_order_relaxed);
  if (meeting.arrived.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
    meeting.arrived.store(0, std::memory_order_relaxed);
    meeting.round.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; meeting.round.load(std::memory_order_acquire) == round; ++spins) {
    if (spins < kSpins)
      pause();
    else
      yield();
  }
}

// The threads of one process, and what they share.
struct Team {
  using Function = void (*)(void*, Worker&);

  explicit Team(int threads) : born(generation.load()), size(threads) {
    try {
      for (int index = 1; index < size; ++index) others.emplace_back([this, index] { work(index); });
    } catch (...) {
      stop();
      throw;
    }
  }

  ~Team() { stop(); }

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stopped.store(true);
    }
    awake.notify_all();
    for (std::thread& thread : others) thread.join();
    others.clear();
  }

  void run(Function f, void* b) {
    std::lock_guard<std::mutex> one_at_a_time(calls);
    function = f;
    body = b;
    for (auto& next : meeting.next) next[0].store(0, std::memory_order_relaxed);
    left.store(size - 1, std::memory_order_relaxed);
    job.fetch_add(1);  // sequentially consistent, as `sleepers` is: either we see a sleeper or it sees the job
    wake();
    Worker worker(&meeting, 0, size);
    f(b, worker);
    for (int spins = 0; left.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < kSpins)
        pause();
      else
        yield();
    }
  }

  void wake() {
    if (sleepers.load() == 0) return;
    {
      std::lock_guard<std::mutex> lock(mutex);
      calls_to_wake.fetch_add(1);
    }
    awake.notify_all();
  }

  void work(int index) {
    uint32_t done = 0;
    for (;;) {
      if (!find_job(done)) return;
      ++done;
      Worker worker(&meeting, index, size);
      function(body, worker);
      left.fetch_sub(1, std::memory_order_release);
    }
  }

  // Waits for a job after the first `done`; false when there will be none.
  bool find_job(uint32_t done) {
    for (;;) {
      const Clock::time_point patience = Clock::now() + kAwake;
      for (int spins = 0; job.load(std::memory_order_acquire) == done; ++spins) {
        if (stopped.load(std::memory_order_relaxed)) return false;
        pause();
        if ((spins & 63) == 63 && Clock::now() > patience) break;
      }
      if (job.load(std::memory_order_acquire) != done) return true;
      std::unique_lock<std::mutex> lock(mutex);
      const uint32_t woken = calls_to_wake.load();
      sleepers.fetch_add(1);
      awake.wait(lock, [&] { return job.load() != done || stopped.load() || calls_to_wake.load() != woken; });
      sleepers.fetch_sub(1);
    }
  }

  const uint32_t born;
  const int size;
  Meeting meeting;
  std::mutex calls;

  Function function = nullptr;
  void* body = nullptr;
  alignas(64) std::atomic<uint32_t> job{0};  // how many there have been
  alignas(64) std::atomic<int> left{0};      // threads that have not finished the job

  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<uint32_t> calls_to_wake{0};
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  std::condition_variable awake;
  std::vector<std::thread> others;
};

Pool::Pool(int threads) : size_(threads) {
  if (threads < 1) throw std::invalid_argument("a pool needs at least one thread");
  count_forks();
  team_.store(new Team(size_));
}

Pool::~Pool() {
  Team* team = team_.load();
  if (team && team->born == generation.load()) delete team;  // else its threads are not of this process
}

// The team of this process. That of a parent is left as it is: its locks may be held for ever.
Team& Pool::team() {
  Team* team = team_.load(std::memory_order_acquire);
  while (team->born != generation.load(std::memory_order_relaxed)) {
    Team* own = new Team(size_);
    if (team_.compare_exchange_strong(team, own)) return *own;
    delete own;  // another thread was faster; `team` is now that thread's
  }
  return *team;
}

void Pool::wake() { team().wake(); }

void Pool::run_erased(Function function, void* body) { team().run(function, body); }

}  // namespace offramp
