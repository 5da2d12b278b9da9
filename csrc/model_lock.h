// The lock of a model's calls, which a fork takes as well.
#pragma once

#include <mutex>

namespace offramp {

// One call at a time: scratch is shared. A fork waits for the calls of all models to end, so that a child finds every
// lock free, and neither a store nor scratch half written by a thread that it does not have.
class ModelLock {
 public:
  ModelLock();
  ~ModelLock();
  ModelLock(const ModelLock&) = delete;
  ModelLock& operator=(const ModelLock&) = delete;

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

}  // namespace offramp
