#include "description.h"

#include <limits>
#include <string>
#include <utility>

#include "batch.h"

namespace nb = nanobind;

namespace offramp {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

// A field, or none.
nb::object find(nb::handle description, const char* name) {
  if (!nb::cast<bool>(description.attr("__contains__")(name))) return nb::none();
  return description[name];
}

nb::object get(nb::handle description, const char* name) {
  nb::object field = find(description, name);
  if (field.is_none()) refuse("`" + std::string(name) + "` is missing");
  return field;
}

double number(nb::handle field) {
  const double value = PyFloat_AsDouble(field.ptr());
  if (value == -1 && PyErr_Occurred()) nb::raise_python_error();
  return value;
}

int64_t integer(nb::handle description, const char* name) { return read_integer(get(description, name).ptr()); }

double number_or(nb::handle description, const char* name, double otherwise) {
  const nb::object field = find(description, name);
  return field.is_none() ? otherwise : number(field);
}

template <typename T>
std::vector<T> values(nb::handle description, const char* name, const char* kind) {
  const nb::object field = find(description, name);
  if (field.is_none()) return {};
  nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
  if (!nb::try_cast(field, array, false)) refuse("`" + std::string(name) + "` must be a contiguous array of " + kind);
  return std::vector<T>(array.data(), array.data() + array.shape(0));
}

std::vector<float> floats(nb::handle description, const char* name) {
  return values<float>(description, name, "float32");
}

Matrix matrix_or_none(nb::handle description, const char* name, Kept* kept) {
  const nb::object field = find(description, name);
  return field.is_none() ? Matrix() : read_matrix(field, name, kept);
}

WeightType weight_type(const std::string& name) {
  const char* names[] = {"f32", "f16", "bf16", "i8", "i4", "i4m"};
  for (int i = 0; i < 6; ++i) {
    if (name == names[i]) return static_cast<WeightType>(i);
  }
  refuse("there is no weight type `" + name + "`");
}

Activation activation_of(nb::handle description) {
  const nb::object field = find(description, "activation");
  const std::string text = field.is_none() ? "silu" : nb::str(field).c_str();
  if (text == "silu") return Activation::silu;
  if (text == "gelu") return Activation::gelu;
  if (text == "relu") return Activation::relu;
  refuse("`activation` must be silu, gelu or relu, not `" + text + "`");
}

// One of none, linear, mlp.
template <typename Kind>
Kind kind_of(nb::handle description, const char* name) {
  const nb::object field = find(description, name);
  if (field.is_none()) return Kind::none;
  const std::string text = nb::str(field).c_str();
  if (text == "none") return Kind::none;
  if (text == "linear") return Kind::linear;
  if (text == "mlp") return Kind::mlp;
  refuse("`" + std::string(name) + "` must be none, linear or mlp, not `" + text + "`");
}

}  // namespace

Config read_config(nb::handle description) {
  Config c;
  c.hidden = integer(description, "hidden");
  c.intermediate = integer(description, "intermediate");
  c.heads = integer(description, "heads");
  c.kv_heads = integer(description, "kv_heads");
  c.head_dim = integer(description, "head_dim");
  c.vocab = integer(description, "vocab");
  c.max_positions = integer(description, "max_positions");
  c.eps = static_cast<float>(number(get(description, "eps")));
  for (nb::handle frequency : get(description, "frequencies")) c.frequencies.push_back(number(frequency));
  c.rope_factor = number_or(description, "rope_factor", 1);
  c.bias = floats(description, "bias");
  const nb::object scaled = find(description, "scaled");
  c.scaled = scaled.is_none() || nb::cast<bool>(scaled);
  c.activation = activation_of(description);
  for (nb::handle layers : get(description, "layers_at")) c.layers_at.push_back(read_integer(layers.ptr()));
  c.block_size = integer(description, "block_size");
  c.num_blocks = integer(description, "num_blocks");
  c.half_kv = nb::cast<bool>(get(description, "half_kv"));
  return c;
}

Matrix read_matrix(nb::handle object, const char* name, Kept* kept) {
  const std::string of = "`" + std::string(name) + "`";
  if (!PyTuple_Check(object.ptr()) || PyTuple_GET_SIZE(object.ptr()) != 4) refuse(of + " must be (type, n, k, data)");
  Matrix matrix;
  matrix.type = weight_type(nb::str(object[0]).c_str());
  matrix.n = read_integer(nb::object(object[1]).ptr());
  matrix.k = read_integer(nb::object(object[2]).ptr());
  constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();
  if (matrix.n < 1 || matrix.k < 1 || matrix.n > kLargest || matrix.k > kLargest) refuse(of + " has no possible size");
  int64_t bytes = 0;
  if (__builtin_mul_overflow(matrix.panels(), panel_bytes(matrix.type, matrix.k), &bytes)) refuse(of + " is too large");
  Bytes data;
  const nb::object field = nb::object(object[3]);
  if (!nb::try_cast(field, data, false)) refuse(of + " must have a contiguous array of uint8");
  if (static_cast<int64_t>(data.shape(0)) != bytes) {
    refuse(of + " has " + std::to_string(data.shape(0)) + " bytes, not " + std::to_string(bytes));
  }
  if (reinterpret_cast<uintptr_t>(data.data()) % kAlign != 0) refuse(of + " is not aligned to 64 bytes");
  matrix.data = data.data();
  kept->push_back(std::move(data));
  return matrix;
}

Layer read_layer(nb::handle description, Kept* kept) {
  Layer layer;
  layer.attention_norm = floats(description, "attention_norm");
  layer.mlp_norm = floats(description, "mlp_norm");
  layer.q_norm = floats(description, "q_norm");
  layer.k_norm = floats(description, "k_norm");
  layer.qkv = matrix_or_none(description, "qkv", kept);
  layer.out = matrix_or_none(description, "out", kept);
  layer.gate_up = matrix_or_none(description, "gate_up", kept);
  layer.down = matrix_or_none(description, "down", kept);
  layer.passing = matrix_or_none(description, "passing", kept);
  layer.qkv_bias = floats(description, "qkv_bias");
  layer.out_bias = floats(description, "out_bias");
  layer.gate_up_bias = floats(description, "gate_up_bias");
  layer.down_bias = floats(description, "down_bias");
  layer.passing_bias = floats(description, "passing_bias");
  const nb::object window = find(description, "window");
  layer.window = window.is_none() ? 0 : read_integer(window.ptr());
  layer.cross_norm = floats(description, "cross_norm");
  layer.cross_q = matrix_or_none(description, "cross_q", kept);
  layer.cross_kv = matrix_or_none(description, "cross_kv", kept);
  layer.cross_out = matrix_or_none(description, "cross_out", kept);
  return layer;
}

std::optional<Encoder> read_encoder(nb::handle description, Kept* kept) {
  if (description.is_none()) return std::nullopt;
  Encoder encoder;
  for (nb::handle layer : get(description, "layers")) encoder.layers.push_back(read_layer(layer, kept));
  encoder.bias = floats(description, "bias");
  encoder.norm = floats(description, "norm");
  encoder.max_length = integer(description, "max_length");
  encoder.num_blocks = integer(description, "num_blocks");
  return encoder;
}

Head read_head(nb::handle description, Kept* kept) {
  Head head;
  head.matrix = matrix_or_none(description, "matrix", kept);
  head.ids = values<int32_t>(description, "ids", "int32");
  head.norm = floats(description, "norm");
  head.has_norm = !find(description, "norm").is_none();
  const nb::object other = find(description, "other");
  head.other = !other.is_none() && nb::cast<bool>(other);
  head.other_bias = static_cast<float>(number_or(description, "other_bias", 0));
  head.temperature = static_cast<float>(number_or(description, "temperature", 1));
  head.past = !find(description, "past_weight").is_none();
  head.past_weight = matrix_or_none(description, "past_weight", kept);
  head.past_hidden_norm = floats(description, "past_hidden_norm");
  head.past_state_norm = floats(description, "past_state_norm");
  head.adapter = kind_of<Head::Adapter>(description, "adapter");
  head.adapter_weight = matrix_or_none(description, "adapter_weight", kept);
  head.adapter_bias = floats(description, "adapter_bias");
  head.adapter_norm = floats(description, "adapter_norm");
  head.adapter_gate_up = matrix_or_none(description, "adapter_gate_up", kept);
  head.adapter_down = matrix_or_none(description, "adapter_down", kept);
  head.classifier = kind_of<Head::Classifier>(description, "classifier");
  head.classifier_weight = floats(description, "classifier_weight");
  head.classifier_bias = static_cast<float>(number_or(description, "classifier_bias", 0));
  head.classifier_down = matrix_or_none(description, "classifier_down", kept);
  head.classifier_down_bias = floats(description, "classifier_down_bias");
  head.classifier_up = floats(description, "classifier_up");
  head.classifier_up_bias = static_cast<float>(number_or(description, "classifier_up_bias", 0));
  return head;
}

}  // namespace offramp
