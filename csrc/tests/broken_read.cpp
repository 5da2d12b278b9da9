// Reads one float past a block of memory: AddressSanitizer has to stop this program.
#include <cstddef>
#include <vector>

int main(int count, char**) {
  const std::vector<float> row(static_cast<size_t>(16 * count));
  const volatile float* past = row.data() + row.size();
  return *past > 1;
}
