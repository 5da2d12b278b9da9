#include "model_lock.h"

#include <algorithm>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define OFFRAMP_POSIX 1
#endif

namespace offramp {
namespace {

// The locks of all models of this process.
struct Register {
  std::mutex mutex;  // taken before any of `locks`
  std::vector<ModelLock*> locks;
};

// Never freed: a process may fork while it ends.
Register& all() {
  static Register* const made = new Register;
  return *made;
}

#if defined(OFFRAMP_POSIX)
void take_all() {
  all().mutex.lock();
  for (ModelLock* lock : all().locks) lock->lock();
}

void give_all_back() {
  for (ModelLock* lock : all().locks) lock->unlock();
  all().mutex.unlock();
}
#endif

void follow_forks() {
#if defined(OFFRAMP_POSIX)
  static const int registered = pthread_atfork(take_all, give_all_back, give_all_back);
  (void)registered;
#endif
}

}  // namespace

ModelLock::ModelLock() {
  follow_forks();
  const std::lock_guard<std::mutex> guard(all().mutex);
  all().locks.push_back(this);
}

ModelLock::~ModelLock() {
  const std::lock_guard<std::mutex> guard(all().mutex);
  std::vector<ModelLock*>& locks = all().locks;
  locks.erase(std::find(locks.begin(), locks.end(), this));
}

}  // namespace offramp
