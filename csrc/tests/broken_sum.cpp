// Adds past the largest int: UndefinedBehaviorSanitizer has to stop this program.
#include <cstdint>
#include <limits>

int main(int count, char**) {
  const volatile int32_t dot = std::numeric_limits<int32_t>::max();
  const volatile int32_t sum = dot + count;
  return sum > 0;
}
