// The row loops. Every row is reduced to three numbers from which all the rest follows:
//   max    the greatest score
//   ties   how many scores equal it
//   rest   the sum of exp(score - max) over the others
// so that the sum of exponentials is ties + rest, and log(ties + rest) = log1p(ties - 1 + rest)
// keeps full relative accuracy where one class is nearly certain.
//
// Short rows are worked on in tiles, one row to a lane; long rows one at a time, one class to a
// lane. Which of the two depends on the row's length alone, so a row gives the same bits alone as
// in a batch.
//
// This file is compiled once for each processor level. It calls no inline function of the standard
// library: the linker would keep one copy of it, from any level.

#include "kernels.h"

#include "elementary.h"

namespace {

constexpr size_t longest_tiled_row = 48;

template <class T> constexpr T infinity = __builtin_inf();
template <class T> constexpr T not_a_number = __builtin_nan("");

template <class T> inline bool finite(T x) { return x - x == 0; }

// a + b, and what its rounding lost (Knuth's two-sum).
inline Lanes<double> two_sum(const Lanes<double>& a, const Lanes<double>& b, Lanes<double>& lost) {
  const Lanes<double> sum = a + b, back = sum - a;
  lost = (a - (sum - back)) + (b - back);
  return sum;
}

// Sums lane by lane, precise enough that a million terms cost no accuracy: floats are summed as
// doubles, doubles with the rounding error of each addition kept.
template <class T> struct Sum;
template <> struct Sum<float> {
  Wide<float> sum = {{all(0.0), all(0.0)}}, lost = sum;

  void add(const Lanes<float>& x) {
    const Wide<float> wide = widen(x);
    sum = {{sum.v[0] + wide.v[0], sum.v[1] + wide.v[1]}};
  }
};
template <> struct Sum<double> {
  Wide<double> sum = {{all(0.0)}}, lost = sum;

  void add(const Lanes<double>& x) {
    Lanes<double> error;
    sum.v[0] = two_sum(sum.v[0], x, error);
    lost.v[0] = lost.v[0] + error;
  }
};

template <class T> inline T first(const Lanes<T>& x) {
  T lane[lanes<T>];
  store(lane, x);
  return lane[0];
}
template <class T> inline Wide<T> all_wide(double x) {
  return map_wide<T>([=](size_t) { return all(x); });
}

// The sum over all lanes, in every lane.
template <class T> inline Sum<T> join(const Sum<T>& x) {
  double lane[Wide<T>::count * lanes<double>], error[Wide<T>::count * lanes<double>];
  double sum = 0, lost = 0;
  for (size_t h = 0; h < Wide<T>::count; h++) {
    store(lane + h * lanes<double>, x.sum.v[h]);
    store(error + h * lanes<double>, x.lost.v[h]);
  }
  for (size_t i = 0; i < Wide<T>::count * lanes<double>; i++) {
    const double next = sum + lane[i], back = next - sum;
    lost += (sum - (next - back)) + (lane[i] - back) + error[i];
    sum = next;
  }
  return {all_wide<T>(sum), all_wide<T>(lost)};
}

// A factor known to twice the type's precision, so that a product is rounded once. Products are
// monotone: what low adds is less than half a unit of what high gives.
template <class T> struct Factor {
  Lanes<T> high, low;
  Lanes<T> operator*(const Lanes<T>& x) const { return fma_exact(x, high, x * low); }
};

// What a row (in all lanes) or a tile of rows (one in each lane) was reduced to.
template <class T> struct Total {
  Lanes<T> max, ties;
  Sum<T> rest;

  // The sum of exponentials, less one of the greatest.
  Wide<T> others() const {
    const Wide<T> equal = widen(ties);
    return map_wide<T>([&](size_t h) {
      return equal.v[h] - all(1.0) + (rest.sum.v[h] + rest.lost.v[h]);
    });
  }
  // log sum exp(score - max)
  Wide<T> log_sum() const {
    const Wide<T> sum = others();
    return map_wide<T>([&](size_t h) { return log1p_nonnegative(sum.v[h]); });
  }
  // 1 / sum exp(score - max)
  Factor<T> inverse() const {
    const Wide<T> equal = widen(ties);
    Wide<T> high, low;
    for (size_t h = 0; h < Wide<T>::count; h++) {
      Lanes<double> lost;
      const Lanes<double> sum = two_sum(equal.v[h], rest.sum.v[h], lost);
      const Lanes<double> quotient = all(1.0) / sum, minus = all(0.0) - quotient;
      high.v[h] = quotient;
      const Lanes<double> residue = fma_exact(minus, sum, all(1.0));
      low.v[h] = fma(minus, lost + rest.lost.v[h], residue) * quotient;
    }
    const Lanes<T> rounded = narrow(high);
    const Wide<T> back = widen(rounded);
    return {rounded, narrow(map_wide<T>(
                         [&](size_t h) { return (high.v[h] - back.v[h]) + low.v[h]; }))};
  }
  // log sum exp(z) - z[target]
  Lanes<T> loss(const Lanes<T>& at_target) const {
    const Wide<T> top = widen(max), log = log_sum(), z = widen(at_target);
    return narrow(map_wide<T>([&](size_t h) { return (top.v[h] - z.v[h]) + log.v[h]; }));
  }
  // p[target] - 1: where the target is the greatest, minus the others, to full accuracy.
  Lanes<T> slope_at_target(const Lanes<T>& at_target) const {
    const Factor<T> scale = inverse();
    const Lanes<T> d = at_target - max;
    return where_zero(d, all<T>(0) - scale * narrow(others()),
                      scale * exp_nonpositive(d) - all<T>(1));
  }
};

// A row without a finite maximum, as the row that gives its limit: entries at +inf share the whole
// (0 there, -inf elsewhere); a row of only -inf, or one with a NaN, has no answer.
// Entries stand `stride` apart; to may be from.
template <class T> void settle(const T* from, T* to, size_t k, size_t stride) {
  bool nan = false, any = false;
  for (size_t j = 0; j < k; j++) {
    nan |= from[j * stride] != from[j * stride];
    any |= from[j * stride] == infinity<T>;
  }
  for (size_t j = 0; j < k; j++) {
    const bool top = from[j * stride] == infinity<T>;
    to[j * stride] = nan || !any ? not_a_number<T> : top ? 0 : -infinity<T>;
  }
}

// logsumexp of such a row: its greatest entry, or NaN.
template <class T> T limit_of_logsumexp(const T* z, size_t k) {
  T top = -infinity<T>;
  for (size_t j = 0; j < k; j++) {
    if (z[j] != z[j]) return z[j];
    top = z[j] > top ? z[j] : top;
  }
  return top;
}

// ---- long rows: one class to a lane ----

// The last, partial lanes of a row are filled up with -inf, which adds nothing to any sum.
template <class T> inline Lanes<T> load_tail(const T* from, size_t count) {
  return load_first(from, count, -infinity<T>);
}
template <class T, class F> inline void each(const T* z, size_t k, F f) {
  size_t j = 0;
  for (; j + lanes<T> <= k; j += lanes<T>) f(load(z + j));
  if (j < k) f(load_tail(z + j, k - j));
}
template <class T, class F> inline void transform(const T* z, T* out, size_t k, F f) {
  size_t j = 0;
  for (; j + lanes<T> <= k; j += lanes<T>) {
    __builtin_prefetch(z + k + j, 0, 2);
    store(out + j, f(load(z + j)));
  }
  if (j < k) store_first(out + j, f(load_tail(z + j, k - j)), k - j);
}

// As transform, past the caches.
template <class T, class F> inline void transform_past(const T* z, T* out, size_t k, F f) {
  const size_t beyond = reinterpret_cast<uintptr_t>(out) % lane_bytes / sizeof(T);
  size_t j = beyond ? lanes<T> - beyond : 0;
  if (j > k) j = k;
  if (j) store_first(out, f(load_tail(z, j)), j);
  for (; j + lanes<T> <= k; j += lanes<T>) stream(out + j, f(load(z + j)));
  if (j < k) store_first(out + j, f(load_tail(z + j, k - j)), k - j);
}

template <class T> inline T greatest(const T* z, size_t k) {
  constexpr size_t step = 4 * lanes<T>;  // four chains hide the latency of a maximum
  Lanes<T> m[4] = {all(-infinity<T>), all(-infinity<T>), all(-infinity<T>), all(-infinity<T>)};
  size_t j = 0;
  for (; j + step <= k; j += step)
    for (size_t i = 0; i < 4; i++) m[i] = max(load(z + j + i * lanes<T>), m[i]);
  each(z + j, k - j, [&](const Lanes<T>& x) { m[0] = max(x, m[0]); });
  T lane[lanes<T>], result = -infinity<T>;
  store(lane, max(max(m[0], m[1]), max(m[2], m[3])));
  for (T x : lane) result = x > result ? x : result;
  return result;
}

// Takes scores in, lane by lane, and keeps the sums that a Total is made of.
template <class T> struct Reduction {
  Lanes<T> max, ties = all<T>(0);
  Sum<T> rest = {};

  // keep(difference, exponential) says what is to stand in the place of the scores.
  template <class Keep> Lanes<T> add(const Lanes<T>& scores, Keep keep) {
    const Lanes<T> zero = all<T>(0), d = scores - max, e = exp_nonpositive(d);
    rest.add(where_zero(d, zero, e));
    ties = ties + where_zero(d, all<T>(1), zero);
    return keep(d, e);
  }
};

// Reduces a row whose greatest score is top; what keep gives goes to out, where that is not null.
template <class T, class Keep>
inline Total<T> reduce_row(const T* z, T top, size_t k, T* out, Keep keep) {
  Reduction<T> sums{all(top)};
  const auto step = [&](const Lanes<T>& x) { return sums.add(x, keep); };
  if (out)
    transform(z, out, k, step);
  else
    each(z, k, step);
  T lane[lanes<T>], ties = 0;
  store(lane, sums.ties);
  for (T x : lane) ties += x;
  return {sums.max, all(ties), join(sums.rest)};
}

const auto keep_exponential = [](const auto&, const auto& e) { return e; };
const auto keep_difference = [](const auto& d, const auto&) { return d; };

// ---- short rows: one row to a lane ----

template <class T> struct Tile {
  static constexpr size_t height = lanes<T>;
  alignas(lane_bytes) T entry[longest_tiled_row * height];  // entry j of row l at j * height + l
  Lanes<T> max;
  size_t count, k;
  bool settled[height];  // the row had no finite maximum and stands here as its limit

  Tile(const T* rows, size_t count, size_t k) : count(count), k(k) {
    for (size_t l = 0; l < count; l++)
      for (size_t j = 0; j < k; j++) entry[j * height + l] = rows[l * k + j];
    for (size_t l = count; l < height; l++)
      for (size_t j = 0; j < k; j++) entry[j * height + l] = 0;
    max = all(-infinity<T>);
    for (size_t j = 0; j < k; j++) max = ::max(at(j), max);
    settle_rows();
  }
  void settle_rows() {
    T top[height];
    store(top, max);
    for (size_t l = 0; l < height; l++) {
      settled[l] = !finite(top[l]);
      if (!settled[l]) continue;
      settle(entry + l, entry + l, k, height);
      top[l] = 0;
    }
    max = load(top);
  }
  Lanes<T> at(size_t j) const { return load(entry + j * height); }

  // What keep gives takes the place of each entry.
  template <class Keep> Total<T> reduce(Keep keep) {
    Reduction<T> sums{max};
    for (size_t j = 0; j < k; j++) store(entry + j * height, sums.add(at(j), keep));
    return {max, sums.ties, sums.rest};
  }
  template <class F> void update(F f) {
    for (size_t j = 0; j < k; j++) store(entry + j * height, f(at(j)));
  }
  void write(T* rows) const {
    for (size_t l = 0; l < count; l++)
      for (size_t j = 0; j < k; j++) rows[l * k + j] = entry[j * height + l];
  }
};

template <class T, class F> inline void for_tiles(const T* rows, size_t n, size_t k, F f) {
  for (size_t i = 0; i < n; i += lanes<T>) {
    Tile<T> tile(rows + i * k, n - i < lanes<T> ? n - i : lanes<T>, k);
    f(tile, i);
  }
}

// ---- the kernels ----

// Where the exponentials of one long row wait for their sum: in a buffer that stays in the cache,
// from where the answer is written past it. A row too long for that, and an answer that fits in
// the cache or takes the place of its input, are worked on in the answer itself.
template <class T> class Desk {
 public:
  Desk(const T* rows, const T* out, size_t n, size_t k) {
    constexpr size_t row_bytes = 1 << 19, cache_bytes = 1 << 23;
    const bool aligned = reinterpret_cast<uintptr_t>(out) % sizeof(T) == 0;
    if (rows != out && aligned && k * sizeof(T) <= row_bytes && n * k * sizeof(T) > cache_bytes)
      buffer_ = static_cast<T*>(__builtin_malloc(k * sizeof(T)));
  }
  ~Desk() {
    if (buffer_) fence();
    __builtin_free(buffer_);
  }
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;

  T* place(T* out) const { return buffer_ ? buffer_ : out; }
  // out[j] = f(from[j])
  template <class F> void write(const T* from, T* out, size_t k, F f) const {
    if (buffer_)
      transform_past(from, out, k, f);
    else
      transform(from, out, k, f);
  }

 private:
  T* buffer_ = nullptr;
};

template <class T> void softmax(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      const Factor<T> inverse = tile.reduce(keep_exponential).inverse();
      tile.update([&](const Lanes<T>& e) { return inverse * e; });
      tile.write(out + i * k);
    });
  const Desk<T> desk(rows, out, n, k);
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    T *p = out + i * k, *exps = desk.place(p);
    T top = greatest(z, k);
    if (!finite(top)) settle(z, exps, k, 1), z = exps, top = 0;
    const Factor<T> inverse = reduce_row(z, top, k, exps, keep_exponential).inverse();
    desk.write(exps, p, k, [&](const Lanes<T>& e) { return inverse * e; });
  }
}

template <class T> void log_softmax(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      const Lanes<T> log_sum = narrow(tile.reduce(keep_difference).log_sum());
      tile.update([&](const Lanes<T>& d) { return d - log_sum; });
      tile.write(out + i * k);
    });
  const Desk<T> desk(rows, out, n, k);
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    T *p = out + i * k, *limit = desk.place(p);
    T top = greatest(z, k);
    if (!finite(top)) settle(z, limit, k, 1), z = limit, top = 0;
    const Total<T> total = reduce_row<T>(z, top, k, nullptr, keep_difference);
    const Lanes<T> log_sum = narrow(total.log_sum());
    desk.write(z, p, k, [&](const Lanes<T>& x) { return (x - total.max) - log_sum; });
  }
}

// log sum exp(z) = the loss of a target whose score is 0.
template <class T> void logsumexp(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      store_first(out + i, tile.reduce(keep_difference).loss(all<T>(0)), tile.count);
      for (size_t l = 0; l < tile.count; l++)
        if (tile.settled[l]) out[i + l] = limit_of_logsumexp(rows + (i + l) * k, k);
    });
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    const T top = greatest(z, k);
    out[i] = finite(top)
                 ? first(reduce_row<T>(z, top, k, nullptr, keep_difference).loss(all<T>(0)))
                 : limit_of_logsumexp(z, k);
  }
}

template <class T>
void cross_entropy_tile(Tile<T>& tile, const int64_t* target, const T* scale, T* loss, T* grad) {
  constexpr size_t height = Tile<T>::height;
  T score[height], slope[height];
  for (size_t l = 0; l < height; l++)
    score[l] = tile.entry[(l < tile.count ? target[l] : 0) * height + l];
  const Lanes<T> at_target = load(score);
  const Total<T> total = tile.reduce(keep_exponential);
  store_first(loss, total.loss(at_target), tile.count);
  if (grad) {
    const Factor<T> inverse = total.inverse();
    const Lanes<T> factor = scale ? load_first(scale, tile.count, T(0)) : all<T>(1);
    tile.update([&](const Lanes<T>& e) { return inverse * e * factor; });
    tile.write(grad);
    store(slope, total.slope_at_target(at_target) * factor);
    for (size_t l = 0; l < tile.count; l++) grad[l * tile.k + target[l]] = slope[l];
  }
  for (size_t l = 0; scale && l < tile.count; l++) {
    if (scale[l] != 0) continue;
    loss[l] = 0;
    for (size_t j = 0; grad && j < tile.k; j++) grad[l * tile.k + j] = 0;
  }
}

template <class T>
void cross_entropy_row(const Desk<T>& desk, const T* z, size_t target, T scale, T* loss, T* grad,
                       size_t k) {
  if (scale == 0) {
    *loss = 0;
    for (size_t j = 0; grad && j < k; j++) grad[j] = 0;
    return;
  }
  T top = greatest(z, k);
  T *scratch = nullptr, *exps = grad ? desk.place(grad) : nullptr;
  if (!finite(top)) {
    T* limit = grad ? exps : (scratch = static_cast<T*>(__builtin_malloc(k * sizeof(T))));
    if (!limit) __builtin_abort();
    settle(z, limit, k, 1);
    z = limit, top = 0;
  }
  const Lanes<T> at_target = all(z[target]);
  const Total<T> total = reduce_row(z, top, k, exps, keep_exponential);
  *loss = first(total.loss(at_target));
  if (grad) {
    const Factor<T> inverse = total.inverse();
    const Lanes<T> factor = all(scale);
    desk.write(exps, grad, k, [&](const Lanes<T>& e) { return inverse * e * factor; });
    grad[target] = first(total.slope_at_target(at_target) * factor);
  }
  __builtin_free(scratch);
}

template <class T>
void cross_entropy(const T* rows, const int64_t* target, const T* scale, T* loss, T* grad, size_t n,
                   size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      cross_entropy_tile(tile, target + i, scale ? scale + i : nullptr, loss + i,
                         grad ? grad + i * k : nullptr);
    });
  const Desk<T> desk(rows, grad ? grad : rows, n, k);
  for (size_t i = 0; i < n; i++)
    cross_entropy_row(desk, rows + i * k, size_t(target[i]), scale ? scale[i] : T(1), loss + i,
                      grad ? grad + i * k : nullptr, k);
}

// sigmoid(x) = (x < 0 ? e : 1) / (1 + e) with e = exp(-|x|); the quotient is corrected for the
// rounding of 1 + e and its own, which would otherwise break the order of neighbours.
template <class T> void sigmoid(const T* x, T* out, size_t n) {
  transform(x, out, n, [](const Lanes<T>& x) {
    const Wide<T> e = widen(exp_nonpositive(all<T>(0) - absolute(x))), sign = widen(x);
    const Lanes<double> one = all(1.0);
    return narrow(map_wide<T>([&](size_t h) {
      const Lanes<double> over = where_negative(sign.v[h], e.v[h], one);
      const Lanes<double> sum = one + e.v[h], lost = e.v[h] - (sum - one);
      const Lanes<double> p = over / sum;
      return p + (fma_exact(all(0.0) - p, sum, over) - p * lost) / sum;
    }));
  });
}

// log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|)), in doubles throughout
template <class T> void log_sigmoid(const T* x, T* out, size_t n) {
  transform(x, out, n, [](const Lanes<T>& x) {
    const Wide<T> z = widen(x);
    return narrow(map_wide<T>([&](size_t h) {
      const Lanes<double> zero = all(0.0), e = exp_nonpositive(zero - absolute(z.v[h]));
      return where_negative(z.v[h], z.v[h], zero) - log1p_nonnegative(e);
    }));
  });
}

template <class T> constexpr softly::Kernels<T> table() {
  return {softmax<T>, log_softmax<T>, logsumexp<T>, cross_entropy<T>, sigmoid<T>, log_sigmoid<T>};
}

}  // namespace

#define SOFTLY_JOIN_(a, b) a##b
#define SOFTLY_JOIN(a, b) SOFTLY_JOIN_(a, b)

namespace softly {
extern const Level SOFTLY_JOIN(level_, SOFTLY_LEVEL);
const Level SOFTLY_JOIN(level_, SOFTLY_LEVEL) = {table<float>(), table<double>()};
}  // namespace softly
