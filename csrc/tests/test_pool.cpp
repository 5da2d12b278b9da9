// The pool: every item once, barriers that hold, sleep and waking, two callers, forks.
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "pool.h"
#include "testing.h"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace offramp;

namespace {

void each_item_once(Pool& pool, int64_t items, int64_t chunk) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
  std::atomic<int> workers{0};
  pool.run([&](Worker& worker) {
    ++workers;
    CHECK(worker.count() == pool.size() && worker.index() < worker.count());
    for (int round = 1; round <= 5; ++round) {
      const auto count = [&](int64_t begin, int64_t end) {
        CHECK(0 <= begin && begin < end && end <= items);
        for (int64_t i = begin; i < end; ++i) ++seen[i];
      };
      if (round % 2)
        worker.share(items, chunk, [&](int64_t begin, int64_t end) {
          CHECK(begin % chunk == 0 && end - begin <= chunk);
          count(begin, end);
        });
      else
        worker.spread(items, count);
      for (int64_t i = 0; i < items; ++i) CHECK(seen[i] == round);
      worker.barrier();
    }
  });
  CHECK(workers == pool.size());
}

// Each round reads what the others wrote in the one before.
void barriers_hold(Pool& pool) {
  std::vector<int64_t> written(static_cast<size_t>(pool.size()));
  pool.run([&](Worker& worker) {
    for (int64_t round = 1; round <= 2000; ++round) {
      written[worker.index()] = round;
      worker.barrier();
      for (const int64_t value : written) CHECK(value == round);
      worker.barrier();
    }
  });
}

void wakes_after_sleep(Pool& pool) {
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(i * 50));
    if (i % 2) pool.wake();
    std::atomic<int> ran{0};
    pool.run([&](Worker&) { ++ran; });
    CHECK(ran == pool.size());
  }
}

void callers_wait_for_each_other(Pool& pool) {
  int64_t inside = 0, calls = 0;
  const auto call = [&] {
    for (int i = 0; i < 200; ++i) {
      pool.run([&](Worker& worker) {
        if (worker.index() == 0) CHECK(++inside == 1);
        worker.barrier();
        if (worker.index() == 0) {
          --inside;
          ++calls;
        }
        worker.barrier();
      });
    }
  };
  std::thread other(call);
  call();
  other.join();
  CHECK(calls == 400);
}

// A child has none of its parent's threads, and starts its own.
void forks(Pool& pool) {
#if defined(__unix__) && !defined(__SANITIZE_THREAD__)
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    for (int i = 0; i < 3; ++i) each_item_once(pool, 100, 7);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  each_item_once(pool, 100, 7);
#endif
}

}  // namespace

int main() {
  for (const int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    for (const int64_t items : {0, 1, 2, 7, 64, 1000}) each_item_once(pool, items, items % 5 + 1);
    barriers_hold(pool);
    wakes_after_sleep(pool);
    callers_wait_for_each_other(pool);
    forks(pool);
  }
  bool refused = false;
  try {
    Pool none(0);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}
