#include "head.h"

#include <stdexcept>
#include <string>

namespace offramp {
namespace {

void check(bool good, const char* what) {
  if (!good) throw std::invalid_argument(std::string("a head does not fit the model: ") + what);
}

bool holds(const std::vector<float>& values, int64_t n) { return static_cast<int64_t>(values.size()) == n; }

bool maps(const Matrix& matrix, int64_t k, int64_t n) { return matrix && matrix.k == k && matrix.n == n; }

void check_adapter(const Head& head, int64_t hidden) {
  if (head.adapter == Head::Adapter::linear) {
    check(maps(head.adapter_weight, hidden, hidden), "the adapter's matrix");
    check(holds(head.adapter_bias, hidden), "the adapter's bias");
  } else if (head.adapter == Head::Adapter::mlp) {
    const int64_t width = head.adapter_down.k;
    check(holds(head.adapter_norm, hidden), "the adapter's norm");
    check(width > 0 && maps(head.adapter_down, width, hidden), "the adapter's down projection");
    check(maps(head.adapter_gate_up, hidden, 2 * round_up(width, kPanel)), "the adapter's gate and up projections");
  }
}

void check_past(const Head& head, int64_t hidden) {
  if (!head.past) return;
  check(maps(head.past_weight, 2 * hidden, hidden), "the matrix of its past");
  check(holds(head.past_hidden_norm, hidden) && holds(head.past_state_norm, hidden), "the norms of its past");
}

void check_classifier(const Head& head, int64_t hidden) {
  if (head.classifier == Head::Classifier::linear) {
    check(holds(head.classifier_weight, hidden), "the classifier");
  } else if (head.classifier == Head::Classifier::mlp) {
    const int64_t width = head.classifier_down.n;
    check(width > 0 && maps(head.classifier_down, hidden, width), "the classifier's down projection");
    check(holds(head.classifier_down_bias, width), "the bias of the classifier's down projection");
    check(holds(head.classifier_up, width), "the classifier's up projection");
  }
}

}  // namespace

void prepare_head(Head& head, int64_t hidden, int64_t vocab) {
  check(head.matrix && head.matrix.k == hidden, "its matrix");
  check(head.tokens() > 0, "it has no token");
  check(!head.has_norm || holds(head.norm, hidden), "its norm");
  check(head.temperature > 0, "its temperature");
  check_past(head, hidden);
  check_adapter(head, hidden);
  check_classifier(head, hidden);
  head.columns.clear();
  if (head.ids.empty()) {
    check(head.tokens() == vocab, "its matrix has not one output for each token");
    return;
  }
  check(static_cast<int64_t>(head.ids.size()) == head.tokens(), "its matrix has not one output for each listed token");
  head.columns.assign(static_cast<size_t>(vocab), -1);
  int32_t last = -1;
  for (size_t column = 0; column < head.ids.size(); ++column) {
    const int32_t token = head.ids[column];
    check(token > last && token < vocab, "its token ids do not ascend, or are not the model's");
    head.columns[token] = static_cast<int32_t>(column);
    last = token;
  }
}

}  // namespace offramp
