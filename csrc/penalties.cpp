#include "penalties.h"

#include <limits>

namespace offramp {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void forget(Counts& counts) {
  for (const int32_t column : counts.touched) counts.of[column] = 0;
  counts.touched.clear();
}

bool add_bias(const ScoreRow& row, const Head& head, float* logits) {
  bool allowed = true;
  for (const auto& [token, bias] : row.bias) {
    if (!head.knows(token)) continue;
    const int64_t column = head.column(token);
    if (column >= 0) {
      logits[column] += bias;
    } else if (bias > 0) {
      allowed = false;
    }
  }
  return allowed;
}

// Returns how many tokens without a column are left.
int64_t mask(const ScoreRow& row, const Head& head, float* logits) {
  int64_t outside = 0;
  if (head.other) {
    for (int64_t token = 0; token < head.vocab(); ++token) outside += !row.masks(token);
  }
  for (int64_t column = 0; column < head.tokens(); ++column) {
    if (row.masks(head.token(column))) {
      logits[column] = kNever;
    } else {
      --outside;
    }
  }
  return outside;
}

// Masks and bans. "Other" goes only if every token outside the vocabulary does.
void forbid(const ScoreRow& row, const Head& head, float* logits, Counts& counts) {
  int64_t outside = row.mask.empty() ? head.vocab() - head.tokens() : mask(row, head, logits);
  for (const int32_t token : row.banned) {
    if (!head.knows(token)) continue;
    const int64_t column = head.column(token);
    if (column >= 0) {
      logits[column] = kNever;
    } else if (!row.masks(token) && counts.of[token]++ == 0) {  // a token named twice counts once
      counts.touched.push_back(token);
      --outside;
    }
  }
  forget(counts);
  if (head.other && outside == 0) logits[head.tokens()] = kNever;
}

void count(const std::vector<int32_t>& tokens, const Head& head, Counts& counts) {
  for (const int32_t token : tokens) {
    if (!head.knows(token)) continue;
    const int64_t column = head.column(token);
    if (column >= 0 && counts.of[column]++ == 0) counts.touched.push_back(static_cast<int32_t>(column));
  }
}

// Repetition penalty over prompt and output (Keskar et al. 2019), frequency and presence over output (OpenAI).
void penalise(const ScoreRow& row, const Head& head, float* logits, Counts& counts) {
  if (row.repetition_penalty != 1) {
    const float factor = static_cast<float>(row.repetition_penalty);
    count(row.prompt, head, counts);
    count(row.output, head, counts);
    for (const int32_t column : counts.touched) {
      float& logit = logits[column];
      logit = logit > 0 ? logit / factor : logit * factor;
    }
    forget(counts);
  }
  if (row.frequency_penalty != 0 || row.presence_penalty != 0) {
    count(row.output, head, counts);
    for (const int32_t column : counts.touched) {
      logits[column] -= static_cast<float>(row.frequency_penalty * counts.of[column] + row.presence_penalty);
    }
    forget(counts);
  }
}

}  // namespace

void Counts::reserve(int64_t vocab) {
  if (static_cast<int64_t>(of.size()) >= vocab) return;
  of.resize(static_cast<size_t>(vocab), 0);
  touched.reserve(static_cast<size_t>(vocab));
}

bool adjust(const ScoreRow& row, const Head& head, float* logits, Counts& counts) {
  const bool allowed = add_bias(row, head, logits);
  if (!row.mask.empty() || !row.banned.empty()) forbid(row, head, logits, counts);
  if (row.reads_history()) penalise(row, head, logits, counts);
  return allowed;
}

}  // namespace offramp
