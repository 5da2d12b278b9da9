// Times whole segments at the sizes of SmolLM2-135M with random weights, and says where the time goes.
//
//   bench_segments [threads [f32|f16|bf16|i8|i4|i4m]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "model.h"
#include "operand.h"
#include "testing.h"

using namespace offramp;

namespace {

constexpr int64_t kLayers = 30, kBlock = 16, kLength = 2048;

struct Weights {
  std::vector<std::unique_ptr<Memory>> memory;
  Random random{3};

  Matrix matrix(WeightType type, int64_t n, int64_t k) {
    const int64_t bytes = matrix_bytes(type, n, k);
    memory.push_back(std::make_unique<Memory>(bytes));
    uint8_t* data = memory.back()->data();
    for (int64_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(random.below(1 << 20) >> 7);
    const auto halves = [](uint8_t* at, int64_t count) {  // numbers of a tame size where they count
      for (int64_t i = 0; i < count; ++i) reinterpret_cast<uint16_t*>(at)[i] = 0x1400;
    };
    const int64_t weights = panel_weight_bytes(type, k);
    for (int64_t p = 0; p < num_panels(n); ++p) {
      uint8_t* panel = data + p * panel_bytes(type, k);
      if (is_integer(type))
        halves(panel + weights, (panel_bytes(type, k) - weights) / 2);
      else if (type == WeightType::f32)
        std::fill_n(reinterpret_cast<float*>(panel), weights / 4, 0.01f);
      else
        halves(panel, weights / 2);
    }
    return {type, n, k, data};
  }
};

std::unique_ptr<Model> make_model(Weights& weights, WeightType type, int threads, int64_t sequences) {
  Config c;
  c.hidden = 576;
  c.intermediate = 1536;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.vocab = 1024;
  c.max_positions = kLength;
  c.eps = 1e-5f;
  for (int i = 0; i < 32; ++i) c.frequencies.push_back(std::pow(1e5, -i / 32.0));
  c.layers_at = {0, kLayers};
  c.block_size = kBlock;
  c.num_blocks = sequences * kLength / kBlock;
  std::vector<Layer> layers;
  for (int64_t i = 0; i < kLayers; ++i) {
    Layer layer;
    layer.attention_norm = layer.mlp_norm = std::vector<float>(576, 1.0f);
    layer.qkv = weights.matrix(type, 960, 576);
    layer.out = weights.matrix(type, 576, 576);
    layer.gate_up = weights.matrix(type, 3072, 576);
    layer.down = weights.matrix(type, 576, 1536);
    layer.passing = weights.matrix(type, 384, 576);
    layers.push_back(std::move(layer));
  }
  const Matrix table = weights.matrix(type, 1024, 576);
  Head head;
  head.matrix = table;
  head.norm = std::vector<float>(576, 1.0f);
  return std::make_unique<Model>(c, table, std::move(layers), std::vector<Head>{head}, threads);
}

// `rows` rows from position `from` on, of each sequence.
Batch make_batch(int64_t sequences, int64_t rows, int64_t from) {
  Batch batch;
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t i = 0; i < rows; ++i) {
      batch.positions.push_back(from + i);
      batch.tokens.push_back(static_cast<int32_t>((s * 31 + i) % 1000));
    }
    for (int64_t b = 0; b < kLength / kBlock; ++b) batch.blocks.push_back(static_cast<int32_t>(b * sequences + s));
    batch.row_begin.push_back(batch.rows());
    batch.block_begin.push_back(static_cast<int64_t>(batch.blocks.size()));
  }
  return batch;
}

template <typename Call>
double best_ms(Call&& call) {
  double best = 1e9, total = 0;
  for (int i = 0; i < 40 && (total < 700 || i < 3); ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, ms);
    total += ms;
  }
  return best;
}

void barriers(int threads) {
  Pool pool(threads);
  const double ms = best_ms([&] {
    pool.run([](Worker& worker) {
      for (int i = 0; i < 100000; ++i) worker.barrier();
    });
  });
  std::printf("barrier %.3f us, ", ms / 100);
  const double runs = best_ms([&] {
    for (int i = 0; i < 1000; ++i) pool.run([](Worker&) {});
  });
  std::printf("empty call %.3f us\n", runs);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const std::string name = argc > 2 ? argv[2] : "i8";
  const std::vector<std::string> names = {"f32", "f16", "bf16", "i8", "i4", "i4m"};
  const auto type = static_cast<WeightType>(std::find(names.begin(), names.end(), name) - names.begin());
  if (threads < 1 || type > WeightType::i4m) return std::fprintf(stderr, "bench_segments [threads [type]]\n"), 2;
  std::printf("%s, %d threads, %s\n", kernels().name, threads, name.c_str());
  barriers(threads);
  Weights weights;
  const std::unique_ptr<Model> model = make_model(weights, type, threads, 32);
  std::printf("%9s %5s %5s %9s %9s  %s\n", "sequences", "rows", "from", "ms", "us/row",
              "norm, product, attention, other in %");
  struct Shape {
    int64_t sequences, rows, from;
  };
  for (const Shape& s : {Shape{1, 1, 64},
                         {1, 1, 1000},
                         {1, 4, 64},
                         {1, 8, 64},
                         {1, 8, 1000},
                         {4, 1, 64},
                         {8, 1, 64},
                         {16, 1, 64},
                         {32, 1, 64},
                         {32, 1, 1000},
                         {1, 512, 0},
                         {4, 128, 0}}) {
    const Batch batch = make_batch(s.sequences, s.rows, s.from);
    const double ms = best_ms([&] { model->run_segment(0, batch); });
    model->time(true);
    for (int i = 0; i < 3; ++i) model->run_segment(0, batch);
    const Timings t = model->timings();
    model->time(false);
    const double all = (t.norm + t.product + t.attention + t.other) / 100;
    std::printf("%9ld %5ld %5ld %9.3f %9.1f  %.1f %.1f %.1f %.1f\n", static_cast<long>(s.sequences),
                static_cast<long>(s.rows), static_cast<long>(s.from), ms, 1000 * ms / static_cast<double>(batch.rows()),
                t.norm / all, t.product / all, t.attention / all, t.other / all);
  }
  const Batch batch = make_batch(1, 32, 64);
  std::printf("pass of 32 rows by 30 layers: %.3f ms\n", best_ms([&] { model->pass_tokens(1, 0, 1, batch); }));
}
