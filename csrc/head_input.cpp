#include "head_input.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace offramp {
namespace {

constexpr int64_t kChunk = 4;  // panels a thread takes at once

// Sums 16 lanes by halves. Features are summed in double: they are compared with thresholds.
double fold(double* lanes) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

double dot(const float* a, const float* b, int64_t n) {
  double lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int lane = 0; lane < 16; ++lane) lanes[lane] += static_cast<double>(a[i + lane]) * b[i + lane];
  }
  for (; i < n; ++i) lanes[i & 15] += static_cast<double>(a[i]) * b[i];
  return fold(lanes);
}

double total(const float* a, int64_t n) {
  double lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i & 15] += a[i];
  return fold(lanes);
}

// max(0, cosine); 0 for what is not finite.
float saturation_of(const float* state, const float* previous, int64_t n) {
  constexpr double kTiny = 1e-8;
  const double lengths =
      std::max(std::sqrt(dot(state, state, n)), kTiny) * std::max(std::sqrt(dot(previous, previous, n)), kTiny);
  const double cosine = dot(state, previous, n) / lengths;
  return std::isfinite(cosine) ? static_cast<float>(std::min(std::max(cosine, 0.0), 1.0)) : 0.0f;
}

float sigmoid(double x) { return std::isnan(x) ? 0.0f : static_cast<float>(1 / (1 + std::exp(-x))); }

void normalise(const float* x, const float* weight, float eps, int64_t n, float* y) {
  if (weight) {
    kernels().rms_norm(x, weight, eps, n, y);
  } else {
    std::memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
  }
}

const float* norm_of(const Head& head) { return head.has_norm ? head.norm.data() : nullptr; }

// All panels of one product, shared by the team. `out` rows are round_up(n, 16) floats apart.
void project(Worker& worker, const Matrix& matrix, const Rows& rows, float* out, bool add) {
  const int64_t stride = round_up(matrix.n, kPanel);
  worker.share(matrix.panels(), kChunk, [&](int64_t begin, int64_t end) {
    kernels().matmul(matrix, rows, begin, end, out + begin * kPanel, stride, add);
  });
}

}  // namespace

void HeadInput::reserve(const HeadTask& task) {
  const Head& head = *task.head;
  if (head.past) {
    pair_.reserve(2 * task.hidden, task.count);
    joined_.reserve(task.count * round_up(task.hidden, kPanel));
  }
  normed_.reserve(task.hidden, task.count);
  if (task.classify && head.classifier == Head::Classifier::mlp) {
    low_.reserve(task.count * round_up(head.classifier_down.n, kPanel));
  }
  if (!task.evaluate || head.adapter == Head::Adapter::none) return;
  source_.reserve(task.hidden, task.count);
  adapted_.reserve(task.hidden, task.count);
  sums_.reserve(task.count * round_up(task.hidden, kPanel));
  if (head.adapter == Head::Adapter::mlp) {
    gated_.reserve(head.adapter_down.k, task.count);
    gate_up_.reserve(task.count * round_up(head.adapter_gate_up.n, kPanel));
  }
}

Rows HeadInput::rows(const HeadTask& task) const {
  return (task.head->adapter == Head::Adapter::none ? normed_ : adapted_).rows(task.count);
}

void HeadInput::compute(Worker& worker, const HeadTask& task) {
  if (task.head->past) join(worker, task);
  worker.share(task.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) start(task, row);
  });
  if (task.classify && task.head->classifier == Head::Classifier::mlp) classify(worker, task);
  if (task.evaluate && task.head->adapter != Head::Adapter::none) adapt(worker, task);
}

// p + W [norm(h); norm(p)] of every row.
void HeadInput::join(Worker& worker, const HeadTask& task) {
  const Head& head = *task.head;
  const int64_t width = task.hidden, stride = round_up(width, kPanel);
  worker.share(task.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* past = task.past[row];
      float *pair = pair_.row(row), *sum = joined_.get() + row * stride;
      std::fill(sum, sum + stride, 0.0f);
      normalise(task.states[row], head.past_hidden_norm.data(), task.eps, width, pair);
      if (past) {
        std::copy_n(past, width, sum);
        normalise(past, head.past_state_norm.data(), task.eps, width, pair + width);
      } else {
        std::fill(pair + width, pair + 2 * width, 0.0f);
      }
      if (is_integer(head.past_weight.type)) pair_.quantize(row);
    }
  });
  project(worker, head.past_weight, pair_.rows(task.count), joined_.get(), true);
}

// What the head reads in the place of h.
const float* HeadInput::state(const HeadTask& task, int64_t row) const {
  return task.head->past ? joined_.get() + row * round_up(task.hidden, kPanel) : task.states[row];
}

void HeadInput::keep(const HeadTask& task, int64_t row, const float* state) const {
  if (task.deep) std::copy_n(state, task.hidden, task.deep[row]);
}

// The row's inputs of the first products, and the features that need none.
void HeadInput::start(const HeadTask& task, int64_t row) {
  const Head& head = *task.head;
  const float* state = this->state(task, row);
  Scored& scored = task.scored[row];
  if (task.previous) scored.features[3] = saturation_of(task.states[row], task.previous[row], task.hidden);

  const bool plain = task.evaluate && head.adapter == Head::Adapter::none;
  if (plain) keep(task, row, state);
  if (plain || task.classify) {
    normalise(state, norm_of(head), task.eps, task.hidden, normed_.row(row));
    const bool for_classifier = task.classify && head.classifier == Head::Classifier::mlp;
    if ((plain && is_integer(head.matrix.type)) || (for_classifier && is_integer(head.classifier_down.type))) {
      normed_.quantize(row);
    }
  }
  if (task.classify && head.classifier == Head::Classifier::linear) {
    const double logit = dot(head.classifier_weight.data(), normed_.row(row), task.hidden);
    scored.features[4] = sigmoid(logit + head.classifier_bias);
  }
  if (!task.evaluate || plain) return;

  const bool mlp = head.adapter == Head::Adapter::mlp;
  normalise(state, mlp ? head.adapter_norm.data() : nullptr, task.eps, task.hidden, source_.row(row));
  if (is_integer((mlp ? head.adapter_gate_up : head.adapter_weight).type)) source_.quantize(row);
  const int64_t stride = round_up(task.hidden, kPanel);
  float* sum = sums_.get() + row * stride;
  std::copy_n(state, task.hidden, sum);
  std::fill(sum + task.hidden, sum + stride, 0.0f);
}

void HeadInput::adapt(Worker& worker, const HeadTask& task) {
  const Head& head = *task.head;
  if (head.adapter == Head::Adapter::linear) {
    project(worker, head.adapter_weight, source_.rows(task.count), sums_.get(), true);
  } else {
    project(worker, head.adapter_gate_up, source_.rows(task.count), gate_up_.get(), false);
    const int64_t width = head.adapter_down.k;
    worker.share(task.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* pairs = gate_up_.get() + row * round_up(head.adapter_gate_up.n, kPanel);
        for (int64_t i = 0; i < width; i += kPanel, pairs += 2 * kPanel) {
          kernels().silu_mul(pairs, pairs + kPanel, std::min(kPanel, width - i), gated_.row(row) + i);
        }
        if (is_integer(head.adapter_down.type)) gated_.quantize(row);
      }
    });
    project(worker, head.adapter_down, gated_.rows(task.count), sums_.get(), true);
  }
  worker.share(task.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* sum = sums_.get() + row * round_up(task.hidden, kPanel);
      if (head.adapter == Head::Adapter::linear) kernels().add(sum, head.adapter_bias.data(), task.hidden);
      keep(task, row, sum);
      normalise(sum, norm_of(head), task.eps, task.hidden, adapted_.row(row));
      if (is_integer(head.matrix.type)) adapted_.quantize(row);
    }
  });
}

void HeadInput::classify(Worker& worker, const HeadTask& task) {
  const Head& head = *task.head;
  const int64_t width = head.classifier_down.n;
  project(worker, head.classifier_down, normed_.rows(task.count), low_.get(), false);
  worker.share(task.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* low = low_.get() + row * round_up(width, kPanel);
      kernels().add(low, head.classifier_down_bias.data(), width);
      kernels().silu_mul(low, head.classifier_up.data(), width, low);
      task.scored[row].features[4] = sigmoid(total(low, width) + head.classifier_up_bias);
    }
  });
}

}  // namespace offramp
