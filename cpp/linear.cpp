// A linear layer under a softmax, where the classes are few: what a pass over its rows adds up.
// Features are read from memory once: a tile of rows stays in the cache from its scores to its part
// of the gradient. Compiled once for each processor level.

#include "lanes.h"

#include <algorithm>
#include <new>

#include "kernels.h"

namespace softly {
extern const Functions SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[4];
extern const Losses SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[4];
}  // namespace softly

namespace {

using softly::Grid;
using softly::Layer;
using softly::ptrdiff_t;
using softly::Sums;
using softly::Targets;
using softly::View;

constexpr size_t tile_bytes = 192 << 10;  // of features: they wait in the second cache
constexpr size_t most_tile_rows = 256;
constexpr size_t feature_block = 256;  // their weights wait in the first cache
constexpr bool many_registers = native_bytes == 64;

template <class T> constexpr softly::Type type_of = sizeof(T) == 4 ? softly::Type::f32
                                                                   : softly::Type::f64;
template <class T> const softly::Functions& functions() {
  return softly::SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[int(type_of<T>)];
}
template <class T> const softly::Losses& losses() {
  return softly::SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[int(type_of<T>)];
}

template <class V, class T> inline V splat(T x) { return x - V{}; }

template <class T> class Numbers {  // room on a line of memory
 public:
  explicit Numbers(size_t count)
      : at_(static_cast<T*>(operator new((count + lanes<T>) * sizeof(T), line))) {}
  ~Numbers() { operator delete(at_, line); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  operator T*() { return at_; }

 private:
  static constexpr std::align_val_t line{lane_bytes};
  T* at_;
};

// ---- scores of a tile: s += x w, both by feature; classes are lanes ----

// Rows whose sums are kept in registers together, by the vectors of classes of each.
template <size_t vectors> constexpr size_t rows_at_once() {
  constexpr size_t least[] = {8, 4, 4, 2};
  return least[vectors - 1] * (many_registers ? 2 : 1);
}

// From the first of eight rows to each, in registers: the compiler would keep a pointer for every row
// and run out of them.
struct EightRows {
  ptrdiff_t to[8];
  explicit EightRows(ptrdiff_t stride) {
#pragma GCC unroll 8
    for (ptrdiff_t r = 0; r < 8; r++) {
      to[r] = r * stride;
      asm("" : "+r"(to[r]));
    }
  }
};

template <class V, size_t rows, size_t vectors, class T>
[[gnu::always_inline]] inline void add_scores(const T* x, ptrdiff_t stride, size_t features,
                                              const T* w, size_t width, T* s) {
  constexpr size_t n = sizeof(V) / sizeof(T);
  const EightRows row(stride);
  V sum[rows][vectors];
#pragma GCC unroll 16
  for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; v++) sum[r][v] = copied<V>(s + r * width + v * n);
  constexpr size_t line = lane_bytes / sizeof(T);
  const T *last = x + features, *x8 = x + 8 * stride;
  while (x < last) {
    const T* stop = x + std::min<size_t>(line, size_t(last - x));
#pragma GCC unroll 16
    for (size_t r = 0; r < rows; r++)
      __builtin_prefetch(x + ptrdiff_t(rows) * stride + row.to[r % 8] + (r < 8 ? 0 : 8 * stride));
    for (; x < stop; x++, x8++, w += width) {
      V weight[vectors];
#pragma GCC unroll 4
      for (size_t v = 0; v < vectors; v++) weight[v] = copied<V>(w + v * n);
#pragma GCC unroll 16
      for (size_t r = 0; r < rows; r++) {
        const V each = splat<V>((r < 8 ? x : x8)[row.to[r % 8]]);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) sum[r][v] = fused(each, weight[v], sum[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; v++)
      __builtin_memcpy(s + r * width + v * n, &sum[r][v], sizeof(V));
}

template <class V, size_t vectors, class T>
void add_scores_of(const T* x, ptrdiff_t stride, size_t n, size_t features, const T* w,
                   size_t width, T* s) {
  constexpr size_t step = rows_at_once<vectors>();
  size_t i = 0;
  for (; i + step <= n; i += step)
    add_scores<V, step, vectors>(x + ptrdiff_t(i) * stride, stride, features, w, width,
                                 s + i * width);
  for (; i < n; i++)
    add_scores<V, 1, vectors>(x + ptrdiff_t(i) * stride, stride, features, w, width,
                              s + i * width);
}

// The lanes that hold a row's scores.
template <class T> size_t whole_vectors(size_t classes) {
  return (classes + native<T> - 1) / native<T> * native<T>;
}

template <class T>
void scores_of(const T* x, ptrdiff_t stride, size_t n, size_t features, const T* w, size_t width,
               T* s) {
  for (size_t d = 0; d < features; d += feature_block) {
    const size_t block = std::min(feature_block, features - d);
    const T *from = x + d, *weight = w + d * width;
    if constexpr (sizeof(T) == 4 && many_registers) {
      if (width < native<T>) {
        add_scores_of<Native<float>::Half, 1>(from, stride, n, block, weight, width, s);
        continue;
      }
    }
    size_t at = 0;
    const auto part = [&](auto vectors) {
      add_scores_of<Vector<T>, vectors>(from, stride, n, block, weight + at, width, s + at);
      at += vectors * native<T>;
    };
    while (width - at >= 4 * native<T>) part(Index<4>());
    switch ((width - at) / native<T>) {
      case 3: part(Index<3>()); break;
      case 2: part(Index<2>()); break;
      case 1: part(Index<1>()); break;
    }
  }
}

// ---- the gradient of a tile: g += r' x; features are lanes ----

constexpr size_t most_classes_at_once = many_registers ? 12 : 6;

inline void add_wide(double* to, Vector<double> x, size_t count) {
  if (count >= native<double>) {
    const Vector<double> sum = copied<Vector<double>>(to) + x;
    __builtin_memcpy(to, &sum, sizeof(sum));
  } else {
    for (size_t l = 0; l < count; l++) to[l] += x[l];
  }
}
inline void add_wide(double* to, Vector<float> x, size_t count) {
  add_wide(to, as_doubles(half_of<0>(x)), count);
  if (count > native<double>)
    add_wide(to + native<double>, as_doubles(half_of<1>(x)), count - native<double>);
}

// Rows that come next: memory would be idle while a tile's gradient is added up.
struct Ahead {
  const char* at;  // null for none
  ptrdiff_t stride;
  size_t number_bytes;

  // Of row i, the numbers of `count` features from d on.
  template <size_t count> [[gnu::always_inline]] void fetch(size_t i, size_t d) const {
    const char* from = at + ptrdiff_t(i) * stride + d * number_bytes;
    for (size_t byte = 0; byte < count * number_bytes; byte += 64)
      __builtin_prefetch(from + byte, 0, 2);
  }
};

// For `classes` neighbouring classes and `count` features: two full vectors, one, or part of one.
template <size_t classes, size_t vectors, bool partial, class T>
[[gnu::always_inline]] inline void add_gradient(const T* x, ptrdiff_t stride, size_t count,
                                                const T* r, size_t width, size_t n, double* g,
                                                size_t features, const Ahead& ahead, size_t d) {
  Vector<T> sum[classes][vectors] = {};
  for (size_t i = 0; i < n; i++, x += stride, r += width) {
    if (ahead.at) ahead.fetch<vectors * native<T>>(i, d);
    Vector<T> each[vectors];
#pragma GCC unroll 2
    for (size_t v = 0; v < vectors; v++)
      each[v] = partial ? widened_first(x, count) : copied<Vector<T>>(x + v * native<T>);
#pragma GCC unroll 12
    for (size_t k = 0; k < classes; k++) {
      const Vector<T> slope = splat<Vector<T>>(r[k]);
#pragma GCC unroll 2
      for (size_t v = 0; v < vectors; v++) sum[k][v] = fused(each[v], slope, sum[k][v]);
    }
  }
#pragma GCC unroll 12
  for (size_t k = 0; k < classes; k++)
#pragma GCC unroll 2
    for (size_t v = 0; v < vectors; v++)
      add_wide(g + k * features + v * native<T>, sum[k][v], partial ? count : native<T>);
}

template <size_t classes, class T>
void gradient_of_classes(const T* x, ptrdiff_t stride, size_t features, const T* r, size_t width,
                         size_t n, double* g, size_t g_stride, const Ahead& ahead) {
  constexpr size_t pair = 2 * native<T>;
  size_t d = 0;
  for (; d + pair <= features; d += pair)
    add_gradient<classes, 2, false>(x + d, stride, pair, r, width, n, g + d, g_stride, ahead, d);
  for (; d + native<T> <= features; d += native<T>)
    add_gradient<classes, 1, false>(x + d, stride, native<T>, r, width, n, g + d, g_stride, ahead,
                                    d);
  if (d < features)
    add_gradient<classes, 1, true>(x + d, stride, features - d, r, width, n, g + d, g_stride, ahead,
                                   d);
}

template <class T>
using OfClasses = void (*)(const T*, ptrdiff_t, size_t, const T*, size_t, size_t, double*, size_t,
                           const Ahead&);
template <class T, size_t... k>
constexpr OfClasses<T> of_classes(size_t classes, std::index_sequence<k...>) {
  constexpr OfClasses<T> each[] = {gradient_of_classes<k + 1, T>...};
  return each[classes - 1];
}

template <class T>
void gradient_of(const T* x, ptrdiff_t stride, size_t features, const T* r, size_t width,
                 size_t classes, size_t n, double* g, size_t g_stride, const Ahead& ahead) {
  const size_t groups = (classes + most_classes_at_once - 1) / most_classes_at_once;
  for (size_t group = 0, k = 0; group < groups; group++) {
    const size_t some = (classes - k + groups - group - 1) / (groups - group);
    of_classes<T>(some, std::make_index_sequence<most_classes_at_once>())(
        x, stride, features, r + k, width, n, g + k * g_stride, g_stride, k ? Ahead{} : ahead);
    k += some;
  }
}

// ---- features in memory ----

// Rows, stored as X; what is not of the type computed in is copied into it, tile by tile, where it
// stays in the cache from the scores to the gradient.
template <class T, class X> class DenseRows {
 public:
  using Number = T;

  explicit DenseRows(const Layer& layer)
      : x_(static_cast<const X*>(layer.x)), stride_(layer.stride), features_(layer.features),
        copy_(is_copied ? tile_rows() * copy_stride() : 0) {}

  static size_t width(size_t classes) {  // half a vector where that is enough
    const bool is_half = sizeof(T) == 4 && many_registers && 2 * classes <= native<T>;
    return is_half ? native<T> / 2 : whole_vectors<T>(classes);
  }
  size_t tile_rows() const {
    const size_t fit = tile_bytes / (std::max<size_t>(features_, 1) * sizeof(T)) / 16 * 16;
    return std::clamp<size_t>(fit, 16, most_tile_rows);
  }
  void scores(size_t start, size_t n, const T* w, size_t width, T* s) {
    with_tile(start, n, true, [&](const T* x, ptrdiff_t stride) {
      scores_of(x, stride, n, features_, w, width, s);
    });
  }
  // Of the rows whose scores were asked for last. Sums are class by class, the intercepts' last.
  void gradient(size_t start, size_t n, const T* r, size_t width, size_t classes, double* g) {
    const Ahead ahead{reinterpret_cast<const char*>(x_ + ptrdiff_t(start + n) * stride_),
                      stride_ * ptrdiff_t(sizeof(X)), sizeof(X)};
    with_tile(start, n, false, [&](const T* x, ptrdiff_t stride) {
      gradient_of(x, stride, features_, r, width, classes, n, g, features_ + 1, ahead);
    });
    for (size_t i = 0; i < n; i++)
      for (size_t k = 0; k < classes; k++) g[k * (features_ + 1) + features_] += r[i * width + k];
  }

 private:
  static constexpr bool is_copied = !std::is_same_v<T, X>;

  // An odd number of lines of memory: rows that begin at the same place would push each other out.
  size_t copy_stride() const {
    constexpr size_t line = lane_bytes / sizeof(T);
    return ((features_ + line - 1) / line | 1) * line;
  }
  template <class F> void with_tile(size_t start, size_t n, bool is_new, F f) {
    const X* from = x_ + ptrdiff_t(start) * stride_;
    if constexpr (is_copied) {
      T* to = copy_;
      for (size_t i = 0; is_new && i < n; i++)
        std::copy_n(from + ptrdiff_t(i) * stride_, features_, to + i * copy_stride());
      f(to, ptrdiff_t(copy_stride()));
    } else {
      f(from, stride_);
    }
  }

  const X* x_;
  ptrdiff_t stride_;
  size_t features_;
  Numbers<T> copy_;
};

template <class N> inline Vector<double> wide_at(const N* x) {
  if constexpr (sizeof(N) == sizeof(double))
    return copied<Vector<double>>(x);
  else
    return as_doubles(copied<HalfVector>(x));
}

// f(vectors, first class) for up to four vectors of doubles at once.
template <class F> [[gnu::always_inline]] inline void in_groups(size_t width, F f) {
  size_t k = 0;
  for (; k + 4 * native<double> <= width; k += 4 * native<double>) f(Index<4>(), k);
  switch ((width - k) / native<double>) {
    case 3: f(Index<3>(), k); break;
    case 2: f(Index<2>(), k); break;
    case 1: f(Index<1>(), k); break;
  }
}

// Rows, stored as X, of which only some features are not 0. Sums are feature by feature, each padded
// to `width` classes.
template <class T, class I, class X> class SparseRows {
 public:
  using Number = T;

  explicit SparseRows(const Layer& layer, size_t count = 0)
      : x_(static_cast<const X*>(layer.x)), feature_(static_cast<const I*>(layer.feature)),
        row_(static_cast<const I*>(layer.row)), features_(layer.features), count_(count) {}

  static size_t width(size_t classes) {
    return (classes + lanes<double> - 1) / lanes<double> * lanes<double>;
  }
  size_t tile_rows() const { return most_tile_rows; }
  void scores(size_t start, size_t n, const T* w, size_t width, T* s) const {
    size_t k = 0;
    for (; k + 4 * native<T> <= width; k += 4 * native<T>) scores_of<4>(start, n, w, width, k, s);
    switch ((width - k) / native<T>) {
      case 3: scores_of<3>(start, n, w, width, k, s); break;
      case 2: scores_of<2>(start, n, w, width, k, s); break;
      case 1: scores_of<1>(start, n, w, width, k, s); break;
      default:
        if (k < width) scores_of<0>(start, n, w, width, k, s);
    }
  }
  void gradient(size_t start, size_t n, const T* r, size_t width, size_t, double* g) const {
    for (size_t i = 0; i < n; i++)
      in_groups(width, [&](auto vectors, size_t k) {
        Vector<double> slope[vectors];
        for (size_t v = 0; v < vectors; v++)
          slope[v] = wide_at(r + i * width + k + v * native<double>);
        const auto add = [&](double x, size_t feature) {
          double* sum = g + feature * width + k;
          const auto all_x = splat<Vector<double>>(x);
#pragma GCC unroll 4
          for (size_t v = 0; v < vectors; v++) {
            double* to = sum + v * native<double>;
            const auto more = fused(all_x, slope[v], copied<Vector<double>>(to));
            __builtin_memcpy(to, &more, sizeof(more));
          }
        };
        each_of(start + i, add);
        add(1.0, features_);
      });
  }
  // scale times the sum of rows of r, each by what it is in this row; all of them in a last row.
  template <class To>
  void gather(size_t start, size_t stop, const T* r, size_t width, size_t classes, double scale,
              To* to) const {
    for (size_t i = start; i < stop; i++)
      in_groups(width, [&](auto vectors, size_t k) {
        Vector<double> sum[vectors] = {};
        const auto add = [&](double x, size_t from) {
          const auto all_x = splat<Vector<double>>(x);
#pragma GCC unroll 4
          for (size_t v = 0; v < vectors; v++)
            sum[v] = fused(all_x, wide_at(r + from * width + k + v * native<double>), sum[v]);
        };
        if (i < count_)
          each_of(i, add);
        else
          for (size_t from = 0; from < features_; from++) add(1.0, from);
        double each[4 * native<double>];
        __builtin_memcpy(each, sum, sizeof(sum));
        for (size_t c = k; c < std::min(classes, k + vectors * native<double>); c++)
          to[i * classes + c] += To(scale * each[c - k]);
      });
  }

 private:
  // Classes from k on: full vectors of them, and half of one where that is what is left.
  template <size_t vectors>
  void scores_of(size_t start, size_t n, const T* w, size_t width, size_t k, T* s) const {
    if constexpr (sizeof(T) == 4 && many_registers && vectors < 4) {
      if ((width - k) % native<T>) return add_scores<vectors, HalfVector>(start, n, w, width, k, s);
    }
    if constexpr (vectors > 0) add_scores<vectors, Nothing>(start, n, w, width, k, s);
  }
  struct Nothing {};
  template <size_t vectors, class Rest>
  void add_scores(size_t start, size_t n, const T* w, size_t width, size_t k, T* s) const {
    constexpr bool has_rest = !std::is_same_v<Rest, Nothing>;
    for (size_t i = 0; i < n; i++) {
      T* row = s + i * width + k;
      Vector<T> sum[vectors + 1];
      Rest rest;
#pragma GCC unroll 4
      for (size_t v = 0; v < vectors; v++) sum[v] = copied<Vector<T>>(row + v * native<T>);
      if constexpr (has_rest) rest = copied<Rest>(row + vectors * native<T>);
      each_of(start + i, [&](T x, size_t feature) {
        const T* weight = w + feature * width + k;
        const auto all_x = splat<Vector<T>>(x);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
          sum[v] = fused(all_x, copied<Vector<T>>(weight + v * native<T>), sum[v]);
        if constexpr (has_rest)
          rest = fused(splat<Rest>(x), copied<Rest>(weight + vectors * native<T>), rest);
      });
#pragma GCC unroll 4
      for (size_t v = 0; v < vectors; v++)
        __builtin_memcpy(row + v * native<T>, &sum[v], sizeof(sum[v]));
      if constexpr (has_rest) __builtin_memcpy(row + vectors * native<T>, &rest, sizeof(rest));
    }
  }
  template <class F> [[gnu::always_inline]] inline void each_of(size_t row, F f) const {
    for (size_t j = size_t(row_[row]); j < size_t(row_[row + 1]); j++) f(x_[j], size_t(feature_[j]));
  }

  const X* x_;
  const I *feature_, *row_;
  size_t features_, count_;
};

// ---- a pass ----

// The weights with their classes padded to whole vectors by zeros; the intercepts come last.
template <class T> void pack(const T* from, size_t features, size_t classes, size_t width, T* to) {
  for (size_t d = 0; d <= features; d++, from += classes, to += width) {
    std::copy(from, from + classes, to);
    std::fill(to + classes, to + width, T(0));
  }
}

template <class T> View view_of(T* numbers, size_t stride) {
  View view;
  view.data = const_cast<std::remove_const_t<T>*>(numbers);
  view.stride[0] = ptrdiff_t(stride);
  return view;
}

template <class Rows> class Pass {
 public:
  using T = typename Rows::Number;

  Pass(const Layer& layer, const T* weights)
      : layer_(layer), classes_(layer.classes), width_(Rows::width(classes_)), rows_(layer),
        packed_(layer.is_packed ? 0 : (layer.features + 1) * width_), weights_(weights) {
    if (layer.is_packed) return;
    pack(weights, layer.features, classes_, width_, static_cast<T*>(packed_));
    weights_ = packed_;
  }
  size_t width() const { return width_; }
  size_t tile_rows() const { return rows_.tile_rows(); }
  void scores(size_t start, size_t n, T* s) {
    for (size_t i = 0; i < n; i++)
      std::copy_n(weights_ + layer_.features * width_, width_, s + i * width_);
    rows_.scores(start, n, weights_, width_, s);
  }
  void gradient(size_t start, size_t n, const T* r, double* g) {
    rows_.gradient(start, n, r, width_, classes_, g);
  }
  Grid grid(size_t n) const {
    Grid grid{};
    grid.k = classes_, grid.stop = n, grid.dimensions = 1, grid.size[0] = n;
    return grid;
  }

 private:
  const Layer& layer_;
  size_t classes_, width_;
  Rows rows_;
  Numbers<T> packed_;
  const T* weights_;
};

// p = r / s + y, of r = s (p - y).
template <class T>
void keep_probabilities(const T* r, size_t width, size_t classes, size_t n, const int64_t* target,
                        const T* soft, const T* weight, T* p) {
  for (size_t i = 0; i < n; i++, r += width, p += classes) {
    const T scale = !weight ? 1 : weight[i] > 0 ? 1 / weight[i] : 0;
    for (size_t k = 0; k < classes; k++) p[k] = r[k] * scale + (soft ? soft[i * classes + k] : 0);
    if (target) p[target[i]] += 1;
  }
}

// Rows that weigh nothing, as those of a fold held out do, add nothing: a tile of them is not read.
template <class T> bool weighs_nothing(const T* weight, size_t start, size_t n) {
  return weight && std::all_of(weight + start, weight + start + n, [](T s) { return s == 0; });
}

template <class T> void clear(void* numbers, size_t width, size_t start, size_t n) {
  if (numbers) std::fill_n(static_cast<T*>(numbers) + start * width, n * width, T(0));
}

template <class Rows>
double loss_of(const Layer& layer, const void* weights, const Targets& targets, size_t start,
               size_t stop, const Sums& sums, void* probabilities) {
  using T = typename Rows::Number;
  Pass<Rows> pass(layer, static_cast<const T*>(weights));
  const size_t width = pass.width(), most = pass.tile_rows(), k = layer.classes;
  Numbers<T> tile(sums.slopes ? 0 : most * width), losses_of(most);
  const T *weight = static_cast<const T*>(targets.weight), *soft = static_cast<const T*>(targets.soft);
  T* p = static_cast<T*>(probabilities);
  double sum = 0;
  for (size_t row = start; row < stop; row += most) {
    const size_t n = std::min(most, stop - row);
    if (weighs_nothing(weight, row, n)) {
      clear<T>(sums.slopes, width, row, n);
      clear<T>(probabilities, k, row, n);
      continue;
    }
    T* scores = sums.slopes ? static_cast<T*>(sums.slopes) + row * width : tile;
    pass.scores(row, n, scores);
    softly::Scores from;
    from.x = view_of<T>(scores, width);
    softly::Terms terms;
    if (weight) terms.scale.each = weight + row;
    if (targets.index) {
      terms.index.data = targets.index + row;
      terms.wanted = 1;
    } else {
      terms.soft = view_of(soft + row * k, k);
      terms.soft_type = type_of<T>;
    }
    losses<T>().cross_entropy(pass.grid(n), from, terms, losses_of, from.x);
    for (size_t i = 0; i < n; i++) sum += (weight ? double(weight[row + i]) : 1.0) * losses_of[i];
    if (sums.total) pass.gradient(row, n, scores, sums.total);
    if (p)
      keep_probabilities<T>(scores, width, k, n, targets.index ? targets.index + row : nullptr,
                            soft ? soft + row * k : nullptr, weight ? weight + row : nullptr,
                            p + row * k);
  }
  return sum;
}

// The Hessian's product with a direction, at the probabilities given or else those of the weights.
template <class Rows>
void curvature_of(const Layer& layer, const void* weights, const void* direction,
               const void* probabilities, const void* weight, size_t start, size_t stop,
               const Sums& sums) {
  using T = typename Rows::Number;
  Pass<Rows> along(layer, static_cast<const T*>(direction));
  Pass<Rows> at(layer, static_cast<const T*>(probabilities ? direction : weights));
  const size_t width = along.width(), most = along.tile_rows(), k = layer.classes;
  Numbers<T> tile(sums.slopes ? 0 : most * width), scores(probabilities ? 0 : most * width);
  const T *p = static_cast<const T*>(probabilities), *s = static_cast<const T*>(weight);
  for (size_t row = start; row < stop; row += most) {
    const size_t n = std::min(most, stop - row);
    if (weighs_nothing(s, row, n)) {
      clear<T>(sums.slopes, width, row, n);
      continue;
    }
    T* slopes = sums.slopes ? static_cast<T*>(sums.slopes) + row * width : tile;
    softly::Scores from;
    if (p) {
      from.x = view_of(p + row * k, k);
    } else {
      at.scores(row, n, scores);
      from.x = view_of<T>(scores, width);
      functions<T>().softmax(at.grid(n), from, from.x);
    }
    along.scores(row, n, slopes);
    const View to = view_of<T>(slopes, width);
    functions<T>().softmax_vjp(along.grid(n), from, to, to);
    if (s)
      for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++) slopes[i * width + j] *= s[row + i];
    if (sums.total) along.gradient(row, n, slopes, sums.total);
  }
}

// f with the kind of rows that the layer has; sparse doubles are not worked on in floats.
template <class T, class X, class F> auto with_sparse_rows(const Layer& layer, F f) {
  if (layer.index_bytes == 4) return f(static_cast<SparseRows<T, int32_t, X>*>(nullptr));
  return f(static_cast<SparseRows<T, int64_t, X>*>(nullptr));
}
template <class T, class F> auto with_rows(const Layer& layer, F f) {
  const bool is_dense = !layer.feature, is_short = layer.number_bytes == 4;
  if (is_dense && is_short) return f(static_cast<DenseRows<T, float>*>(nullptr));
  if (is_dense) return f(static_cast<DenseRows<T, double>*>(nullptr));
  if (is_short) return with_sparse_rows<T, float>(layer, f);
  if constexpr (sizeof(T) == 8) return with_sparse_rows<T, double>(layer, f);
  __builtin_unreachable();
}

template <class T>
double loss(const Layer& layer, const void* weights, const Targets& targets, size_t start,
            size_t stop, const Sums& sums, void* probabilities) {
  return with_rows<T>(layer, [&]<class Rows>(Rows*) {
    return loss_of<Rows>(layer, weights, targets, start, stop, sums, probabilities);
  });
}

template <class T>
void curvature(const Layer& layer, const void* weights, const void* direction,
               const void* probabilities, const void* weight, size_t start, size_t stop,
               const Sums& sums) {
  with_rows<T>(layer, [&]<class Rows>(Rows*) {
    curvature_of<Rows>(layer, weights, direction, probabilities, weight, start, stop, sums);
  });
}

template <class T>
void gather(const Layer& columns, size_t count, const void* slopes, size_t start, size_t stop,
            double scale, void* to, bool to_doubles) {
  const auto work = [&]<class Rows>(Rows*) {
    const Rows rows(columns, count);
    const auto add = [&](auto* total) {
      rows.gather(start, stop, static_cast<const T*>(slopes), Rows::width(columns.classes),
                  columns.classes, scale, total);
    };
    if (to_doubles)
      add(static_cast<double*>(to));
    else
      add(static_cast<float*>(to));
  };
  if (columns.number_bytes == 4) return with_sparse_rows<T, float>(columns, work);
  if constexpr (sizeof(T) == 8) return with_sparse_rows<T, double>(columns, work);
}

template <class T> constexpr softly::Linear table() {
  return {loss<T>, curvature<T>, gather<T>};
}

}  // namespace

namespace softly {
extern const Linear SOFTLY_JOIN(linear_, SOFTLY_LEVEL)[2];
const Linear SOFTLY_JOIN(linear_, SOFTLY_LEVEL)[2] = {table<float>(), table<double>()};
}  // namespace softly
