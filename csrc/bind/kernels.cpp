// Instruction sets, packing, ceilings, and the kernels one by one. Sizes are checked here: C++ below trusts them.
#include "kernels.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bind.h"
#include "measure.h"
#include "pack.h"
#include "pool.h"

namespace nb = nanobind;

namespace offramp {
namespace {

template <typename T, int dims>
using Given = nb::ndarray<const T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
template <typename T, int dims>
using Changed = nb::ndarray<T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array = nb::ndarray<nb::numpy, T>;

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

template <typename T>
Array<T> make_array(std::vector<size_t> shape) {
  size_t size = 1;
  for (const size_t length : shape) size *= length;
  T* data = new T[size]();
  const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Array<T>(data, shape.size(), shape.data(), owner);
}

template <typename A>
int64_t length(const A& array, int axis = 0) {
  return static_cast<int64_t>(array.shape(axis));
}

WeightType weight_type(const std::string& name) {
  const char* names[] = {"f32", "f16", "bf16", "i8", "i4", "i4m"};
  for (int i = 0; i < 6; ++i)
    if (name == names[i]) return static_cast<WeightType>(i);
  throw std::invalid_argument("there is no weight type `" + name + "`: allowed are f32, f16, bf16, i8, i4, i4m");
}

BlockType block_type(const std::string& name) {
  const char* names[] = {"Q8_0", "Q4_0", "Q4_1", "Q4_K"};
  for (int i = 0; i < 4; ++i)
    if (name == names[i]) return static_cast<BlockType>(i);
  throw std::invalid_argument("there is no block type `" + name + "`: allowed are Q8_0, Q4_0, Q4_1, Q4_K");
}

int64_t checked_bytes(WeightType type, int64_t n, int64_t k) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  require(n >= 1 && k >= 1 && n <= most && k <= most, "a matrix of " + std::to_string(n) + " x " + std::to_string(k));
  int64_t bytes = 0;
  const bool overflow = __builtin_mul_overflow(num_panels(n), panel_bytes(type, k), &bytes);
  require(!overflow, "a matrix of " + std::to_string(n) + " x " + std::to_string(k) + " is too large");
  return bytes;
}

void check_data(WeightType type, int64_t n, int64_t k, int64_t bytes) {
  const int64_t needed = checked_bytes(type, n, k);
  require(bytes == needed,
          "a matrix of this type and size has " + std::to_string(needed) + " bytes, not " + std::to_string(bytes));
}

// Rows [0, n) of k inputs, packed into panels first, first + step, ... of a matrix of target_n outputs.
Target check_target(WeightType type, int64_t n, int64_t k, const Changed<uint8_t, 1>& target, int64_t target_n,
                    int64_t first, int64_t step) {
  check_data(type, target_n, k, length(target));
  require(n >= 1, "there is no row to pack");
  const int64_t panels = num_panels(target_n);
  const bool fits = first >= 0 && first < panels && step >= 1 && num_panels(n) - 1 <= (panels - 1 - first) / step;
  require(fits, std::to_string(n) + " rows from panel " + std::to_string(first) + " in steps of " +
                    std::to_string(step) + " go beyond the " + std::to_string(panels) + " panels of the target");
  return {target.data(), first, step};
}

Matrix check_matrix(const std::string& type_name, const Given<uint8_t, 1>& data, int64_t n, int64_t k) {
  const WeightType type = weight_type(type_name);
  check_data(type, n, k, length(data));
  return {type, n, k, data.data()};
}

// --- instruction sets

std::vector<std::string> supported_isas() {
  const Kernels* const* tables = nullptr;
  const int count = supported_kernels(&tables);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(tables[i]->name);
  return names;
}

void choose_isa(const std::string& name) {
  if (choose_kernels(name.c_str())) return;
  std::string message = "this machine cannot run `" + name + "`; it can run";
  for (const std::string& other : supported_isas()) message += " `" + other + "`";
  throw std::invalid_argument(message);
}

// --- packing

void pack_f32(const std::string& type_name, const Given<float, 2>& rows, const Changed<uint8_t, 1>& target,
              int64_t target_n, int64_t first_panel, int64_t panel_step) {
  const WeightType type = weight_type(type_name);
  const int64_t n = length(rows), k = length(rows, 1);
  const Target to = check_target(type, n, k, target, target_n, first_panel, panel_step);
  const nb::gil_scoped_release release;
  pack_floats(type, rows.data(), n, k, to);
}

void pack_gguf(const std::string& kind, const Given<uint8_t, 2>& rows, int64_t k, const std::string& type_name,
               const Changed<uint8_t, 1>& target, int64_t target_n, int64_t first_panel, int64_t panel_step) {
  const BlockType block = block_type(kind);
  const WeightType type = weight_type(type_name);
  require(can_hold(type, block), "blocks of " + kind + " cannot be repacked as " + type_name);
  require(k >= 1 && k % block_weights(block) == 0,
          "rows of " + std::to_string(k) + " weights are no whole blocks of " + kind);
  const int64_t row_bytes = k / block_weights(block) * block_bytes(block);
  require(length(rows, 1) == row_bytes,
          "rows have " + std::to_string(rows.shape(1)) + " bytes, not " + std::to_string(row_bytes));
  const int64_t n = length(rows);
  const Target to = check_target(type, n, k, target, target_n, first_panel, panel_step);
  const nb::gil_scoped_release release;
  pack_blocks(block, type, rows.data(), n, k, to);
}

Array<float> unpack(const std::string& type, const Given<uint8_t, 1>& data, int64_t n, int64_t k) {
  const Matrix matrix = check_matrix(type, data, n, k);
  const Array<float> out = make_array<float>({static_cast<size_t>(n), static_cast<size_t>(k)});
  const nb::gil_scoped_release release;
  for (int64_t row = 0; row < n; ++row) unpack_row(matrix, row, out.data() + row * k);
  return out;
}

// --- ceilings

template <double (*measure)(Pool&)>
double with_pool(int threads) {
  require(threads >= 1 && threads <= 1024, "`threads` is " + std::to_string(threads) + ", not 1 to 1024");
  kernels();  // raises here if OFFRAMP_ISA is no instruction set
  const nb::gil_scoped_release release;
  Pool pool(threads);
  return measure(pool);
}

// --- kernels one by one

using Quantised = std::tuple<Array<int16_t>, Array<float>, Array<int32_t>>;

Quantised quantize_rows(const Given<float, 2>& x) {
  const size_t rows = x.shape(0), groups = static_cast<size_t>(num_groups(length(x, 1)));
  const auto q = make_array<int16_t>({rows, groups * kGroup});
  const auto scale = make_array<float>({rows});
  const auto sum = make_array<int32_t>({rows, groups});
  for (size_t r = 0; r < rows; ++r)
    kernels().quantize(x.data() + r * x.shape(1), length(x, 1), q.data() + r * groups * kGroup, scale.data() + r,
                       sum.data() + r * groups);
  return {q, scale, sum};
}

// The panels [begin, end) of a product, added to `out` [rows, 16 (end - begin)] or written over it.
void matmul_into(const std::string& type, const Given<uint8_t, 1>& data, int64_t n, const Given<float, 2>& x,
                 int64_t begin, int64_t end, const Changed<float, 2>& out, bool add) {
  const Matrix matrix = check_matrix(type, data, n, length(x, 1));
  require(0 <= begin && begin <= end && end <= matrix.panels(),
          "there are no panels " + std::to_string(begin) + " to " + std::to_string(end));
  require(out.shape(0) == x.shape(0) && length(out, 1) == (end - begin) * kPanel, "`out` does not fit rows and panels");
  const auto [q, scale, sum] = quantize_rows(x);
  Rows rows;
  rows.count = length(x);
  rows.x = x.data();
  rows.x_stride = length(x, 1);
  rows.q = q.data();
  rows.scale = scale.data();
  rows.sum = sum.data();
  const nb::gil_scoped_release release;
  kernels().matmul(matrix, rows, begin, end, out.data(), length(out, 1), add);
}

Array<float> rms_norm(const Given<float, 1>& x, const Given<float, 1>& weight, float eps) {
  require(x.shape(0) == weight.shape(0) && x.shape(0) > 0, "`x` and `weight` differ in length");
  const auto y = make_array<float>({x.shape(0)});
  kernels().rms_norm(x.data(), weight.data(), eps, length(x), y.data());
  return y;
}

template <auto kernel>
Array<float> gate_mul(const Given<float, 1>& gate, const Given<float, 1>& up) {
  require(gate.shape(0) == up.shape(0), "`gate` and `up` differ in length");
  const auto y = make_array<float>({gate.shape(0)});
  (kernels().*kernel)(gate.data(), up.data(), length(gate), y.data());
  return y;
}

Array<float> relu(const Given<float, 1>& x) {
  const auto y = make_array<float>({x.shape(0)});
  kernels().relu(x.data(), length(x), y.data());
  return y;
}

void add(const Changed<float, 1>& x, const Given<float, 1>& y) {
  require(x.shape(0) == y.shape(0), "`x` and `y` differ in length");
  kernels().add(x.data(), y.data(), length(x));
}

void rotate(const Changed<float, 1>& x, const Given<float, 1>& cos, const Given<float, 1>& sin) {
  require(cos.shape(0) == sin.shape(0) && x.shape(0) == 2 * cos.shape(0), "`cos` and `sin` are not half of `x`");
  kernels().rotate(x.data(), cos.data(), sin.data(), length(cos));
}

Array<uint16_t> to_half(const Given<float, 1>& x) {
  const auto y = make_array<uint16_t>({x.shape(0)});
  kernels().to_half(x.data(), length(x), y.data());
  return y;
}

Array<float> from_half(const Given<uint16_t, 1>& x) {
  const auto y = make_array<float>({x.shape(0)});
  kernels().from_half(x.data(), length(x), y.data());
  return y;
}

}  // namespace
}  // namespace offramp

void bind_kernels(nb::module_& m) {
  using namespace nb::literals;
  using namespace offramp;
  m.def("supported_isas", supported_isas, "Names of the instruction sets this machine can run, best first.");
  m.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use.");
  m.def("choose_isa", choose_isa, "name"_a, "Use another instruction set; results do not change.");

  m.def(
      "matrix_bytes",
      [](const std::string& type, int64_t n, int64_t k) { return checked_bytes(weight_type(type), n, k); }, "type"_a,
      "n"_a, "k"_a, "Bytes of a packed matrix from k inputs to n outputs.");
  m.def("pack_f32", pack_f32, "type"_a, "rows"_a.noconvert(), "target"_a.noconvert(), "target_n"_a, "first_panel"_a,
        "panel_step"_a, "Round rows to a type, into panels of a matrix with target_n outputs.");
  m.def("pack_blocks", pack_gguf, "kind"_a, "rows"_a.noconvert(), "k"_a, "type"_a, "target"_a.noconvert(), "target_n"_a,
        "first_panel"_a, "panel_step"_a, "Repack rows of GGUF blocks, into panels of a matrix with target_n outputs.");
  m.def("unpack", unpack, "type"_a, "data"_a.noconvert(), "n"_a, "k"_a, "A packed matrix as floats [n, k].");

  m.def("measure_bandwidth", with_pool<measure_read>, "threads"_a, "GB/s of reading memory beyond the caches.");
  m.def("measure_fma", with_pool<measure_float>, "threads"_a, "GFLOP/s of fused multiply-adds in registers.");
  m.def("measure_int8", with_pool<measure_integer>, "threads"_a,
        "10^9 operations a second on integer weights in registers.");

  m.def("quantize", quantize_rows, "x"_a.noconvert(),
        "Rows [rows, k] as (int16, scales [rows], sums by groups of 32).");
  m.def("matmul", matmul_into, "type"_a, "data"_a.noconvert(), "n"_a, "x"_a.noconvert(), "begin"_a, "end"_a,
        "out"_a.noconvert(), "add"_a, "Panels [begin, end) of a product with rows x, into `out`.");
  m.def("rms_norm", offramp::rms_norm, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a);
  m.def("silu_mul", gate_mul<&Kernels::silu_mul>, "gate"_a.noconvert(), "up"_a.noconvert());
  m.def("gelu_mul", gate_mul<&Kernels::gelu_mul>, "gate"_a.noconvert(), "up"_a.noconvert());
  m.def("relu", offramp::relu, "x"_a.noconvert());
  m.def("add", offramp::add, "x"_a.noconvert(), "y"_a.noconvert());
  m.def("rotate", offramp::rotate, "x"_a.noconvert(), "cos"_a.noconvert(), "sin"_a.noconvert());
  m.def("to_half", offramp::to_half, "x"_a.noconvert());
  m.def("from_half", offramp::from_half, "x"_a.noconvert());
}
