// Every kernel over odd sizes, in every layout, with options drawn at random, on heap buffers of
// exactly the size needed: a program for the sanitizers, which stop it at the first access beyond.
// It looks at no answer; test_sanitizers.py compiles and runs it.

#include <sanitizer/asan_interface.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "kernels.h"

namespace softly {
extern const Functions SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[4];
extern const Losses SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[4];
extern const SurveyTargets SOFTLY_JOIN(survey_, SOFTLY_LEVEL);
}  // namespace softly

using namespace softly;

static std::mt19937_64 engine(0);

static size_t below(size_t n) { return engine() % n; }
static bool one_in(size_t n) { return below(n) == 0; }
static double uniform(double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(engine);
}

static size_t bytes_of(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }
static Type compute(Type type) { return type == Type::f64 ? type : Type::f32; }

// Exactly `bytes`, which start `lead` bytes behind a multiple of 64; the lead may not be read.
class Buffer {
 public:
  Buffer(size_t bytes, size_t lead)
      : memory_(static_cast<char*>(::operator new(lead + bytes, alignment))), lead_(lead) {
    ASAN_POISON_MEMORY_REGION(memory_, lead / 8 * 8);  // it poisons eight bytes at a time
  }
  ~Buffer() {
    ASAN_UNPOISON_MEMORY_REGION(memory_, lead_);
    ::operator delete(memory_, alignment);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  char* data() const { return memory_ + lead_; }

 private:
  static constexpr std::align_val_t alignment{64};
  char* memory_;
  size_t lead_;
};

static std::vector<std::unique_ptr<Buffer>> buffers;  // of the present case

static char* room(size_t count, size_t item) {
  buffers.push_back(std::make_unique<Buffer>(count * item, below(4) * item));
  return buffers.back()->data();
}

static void put(char* to, Type type, double x) {
  const float single = float(x);
  uint32_t bits;
  memcpy(&bits, &single, 4);
  if (type == Type::f64) {
    memcpy(to, &x, 8);
  } else if (type == Type::f32) {
    memcpy(to, &single, 4);
  } else if (type == Type::bf16) {
    memcpy(to, reinterpret_cast<const char*>(&bits) + 2, 2);
  } else {  // the exponents that float16 has; infinities and NaN keep theirs
    const uint32_t exponent = bits >> 23 & 255;
    const uint32_t nearest = exponent < 112 ? 0 : exponent > 142 ? 30 : exponent - 112;
    const uint32_t own = exponent == 255 ? 31 : nearest;
    const uint16_t half = uint16_t(bits >> 31 << 15 | own << 10 | (bits >> 13 & 1023));
    memcpy(to, &half, 2);
  }
}

static double score() {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (!one_in(60)) return uniform(-9, 9);
  const double odd[] = {infinity, -infinity, -infinity, NAN, 0, 1e30, -1e-40};
  return odd[below(7)];
}
static double share() { return one_in(5) ? 0 : uniform(0, 1); }

template <class F> static void* numbers(size_t count, Type type, F draw) {
  char* data = room(count, bytes_of(type));
  for (size_t i = 0; i < count; i++) put(data + i * bytes_of(type), type, draw());
  return data;
}

// Rows of k classes; where they are those of two dimensions, of n1 x n2.
struct Shape {
  size_t n, k, n1, n2;
  bool two;

  Grid grid(bool may_pass_caches = true) const {
    Grid grid{};
    grid.k = k;
    grid.start = one_in(4) ? below(n + 1) : 0;
    grid.stop = one_in(4) ? grid.start + below(n - grid.start + 1) : n;
    grid.past_caches = may_pass_caches && one_in(2);
    grid.dimensions = two ? 2 : 1;
    grid.size[0] = two ? n1 : n;
    grid.size[1] = n2;
    return grid;
  }
};

// An array of the shape: rows or columns, with or without gaps, reversed or broadcast, its classes
// one step apart or at any offsets. fill(pointer) writes one entry.
template <class F> static View view_of(const Shape& shape, size_t item, bool shared, F fill) {
  View view;
  const bool plain = one_in(2);
  const ptrdiff_t gap = !plain && one_in(2), inner = !plain && one_in(2) ? 2 : 1;
  const ptrdiff_t k = ptrdiff_t(shape.k), n1 = ptrdiff_t(shape.n1);
  const ptrdiff_t n2 = ptrdiff_t(shape.two ? shape.n2 : shape.n);
  ptrdiff_t outer = 0, row = 0;
  if (one_in(2)) {  // columns
    row = inner, view.step = inner * (n2 + gap), outer = view.step * (k + gap);
  } else {
    view.step = inner, row = inner * (k + gap), outer = row * (n2 + gap);
  }
  if (!plain && one_in(4)) view.step = -view.step;
  if (!plain && one_in(4)) row = -row;
  if (shared && one_in(9)) row = 0;
  if (shared && one_in(9)) view.step = 0;
  view.stride[0] = shape.two ? outer : row;
  view.stride[1] = row;
  if (one_in(6)) {  // as if the classes were of two dimensions, the last one first
    ptrdiff_t* offsets = reinterpret_cast<ptrdiff_t*>(room(shape.k, sizeof(ptrdiff_t)));
    for (ptrdiff_t j = 0; j < k; j++) offsets[j] = (j % 2 ? j / 2 : k - 1 - j / 2) * view.step;
    view.offsets = offsets;
  }
  ptrdiff_t first = 0, last = 0;  // how far the entries reach from row 0, class 0
  const auto reach = [&](ptrdiff_t by) { (by < 0 ? first : last) += by; };
  reach((k - 1) * view.step);
  reach((n2 - 1) * row);
  if (shape.two) reach((n1 - 1) * outer);
  const size_t count = size_t(last - first + 1);
  char* data = room(count, item);
  for (size_t i = 0; i < count; i++) fill(data + i * item);
  view.data = data - first * ptrdiff_t(item);
  return view;
}
template <class F> static View array(const Shape& shape, Type type, bool shared, F draw) {
  return view_of(shape, bytes_of(type), shared, [&](char* at) { put(at, type, draw()); });
}
static View answer(const Shape& shape, Type type) {
  return array(shape, type, false, [] { return 7.0; });
}
static View mask(const Shape& shape) {
  return one_in(2) ? View{} : view_of(shape, 1, true, [](char* at) { *at = !one_in(4); });
}

static PerRow per_row(size_t n, Type type, std::initializer_list<double> often) {
  const auto draw = [&] {
    return one_in(2) ? uniform(0.1, 3) : often.begin()[below(often.size())];
  };
  PerRow x;
  if (one_in(2))
    x.each = numbers(n, compute(type), draw);
  else
    x.value = draw();
  return x;
}

static Integers classes(size_t count, size_t k, int64_t extra) {
  const int sizes[] = {1, 2, 4, 8};
  Integers x{nullptr, sizes[below(4)], one_in(2)};
  char* data = room(count, size_t(x.bytes));
  for (size_t i = 0; i < count; i++) {
    const int64_t one = one_in(9) && x.is_signed ? extra : int64_t(below(k < 128 ? k : 128));
    memcpy(data + i * size_t(x.bytes), &one, size_t(x.bytes));  // little-endian
  }
  x.data = data;
  return x;
}

static Scores scores_of(const Shape& shape, Type type, bool probabilities) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Scores scores;
  scores.x = array(shape, type, true, probabilities ? share : score);
  scores.where = mask(shape);
  scores.temperature = per_row(shape.n, type, {1, 1, 0, infinity});
  return scores;
}

static void call_functions(const Shape& shape, Type type) {
  const Functions& f = SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[int(type)];
  for (auto kernel : {f.softmax, f.log_softmax, f.softmax_inverse}) {
    const Scores scores = scores_of(shape, type, kernel == f.softmax_inverse);
    kernel(shape.grid(), scores, answer(shape, type));
    Scores in_place = scores;
    in_place.x = array(shape, type, false, score);
    kernel(shape.grid(false), in_place, in_place.x);
  }
  for (auto kernel : {f.softmax_vjp, f.log_softmax_vjp})
    kernel(shape.grid(), scores_of(shape, type, kernel == f.softmax_vjp),
           array(shape, type, true, score), answer(shape, type));
  f.logsumexp(shape.grid(), scores_of(shape, type, false), room(shape.n, bytes_of(type)));
  const size_t n = shape.n * shape.k / 3;
  for (auto kernel : {f.sigmoid, f.log_sigmoid, f.exponential})
    kernel(numbers(n, type, score), room(n, bytes_of(type)), n);
}

static Terms terms_of(const Shape& shape, Type type) {
  Terms terms;
  if (one_in(3)) {
    terms.soft_type = Type(below(4));
    terms.soft = array(shape, terms.soft_type, true, share);
  } else {
    terms.wanted = 1 + (one_in(2) ? 0 : below(4));
    terms.has_ignored = terms.wanted == 1 && one_in(2);
    terms.ignored = one_in(2) ? -100 : 0;
    terms.index = classes(shape.n * terms.wanted, shape.k, terms.has_ignored ? terms.ignored : 0);
    if (one_in(2)) terms.share = numbers(shape.n * terms.wanted, compute(type), share);
  }
  if (one_in(2)) terms.class_weight = numbers(shape.k, compute(type), share);
  terms.scale = per_row(shape.n, type, {0, 1});
  if (one_in(2)) terms.smoothing = 0.1;
  if (one_in(2)) terms.z_loss = 0.01;
  if (one_in(3)) terms.cap = 5;
  if (one_in(3)) terms.focal = 2;
  return terms;
}

static void call_losses(const Shape& shape, Type type) {
  const Losses& losses = SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[int(type)];
  const Terms terms = terms_of(shape, type);
  Scores scores = scores_of(shape, type, false);
  void* loss = room(shape.n, bytes_of(compute(type)));
  losses.cross_entropy(shape.grid(), scores, terms, loss, View{});
  losses.cross_entropy(shape.grid(), scores, terms, loss, answer(shape, type));
  scores.x = array(shape, type, false, score);
  losses.cross_entropy(shape.grid(false), scores, terms, loss, scores.x);  // in place
  losses.check_soft(shape.grid(), array(shape, type, true, share),
                    per_row(shape.n, type, {0, 1}), 1e-3);
  losses.total(numbers(shape.k, compute(type), score), shape.k);
  const size_t start = below(shape.n + 1);
  SOFTLY_JOIN(survey_, SOFTLY_LEVEL)(classes(shape.n, shape.k, -100), start, shape.n,
                                     below(shape.k + 1), one_in(2), -100);
}

static size_t row_count() { return one_in(4) ? 16 : 1 + below(40); }

int main() {
  size_t cases = 0;
  for (size_t k = 1; k <= 71; k++) {
    const int draws = k <= 6 ? 30 : k <= 48 ? 5 : 12;  // more where there are more ways to go
    for (Type type : {Type::f16, Type::bf16, Type::f32, Type::f64})
      for (int draw = 0; draw < draws; draw++, cases++) {
        Shape shape{row_count(), k == 71 ? 1000 : k, 1 + below(3), 1 + below(20), one_in(3)};
        if (shape.two) shape.n = shape.n1 * shape.n2;
        call_functions(shape, type);
        call_losses(shape, type);
        buffers.clear();
      }
  }
  printf("%zu cases\n", cases);
}
