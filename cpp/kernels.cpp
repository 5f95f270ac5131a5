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

// Sums lane by lane, precise enough that a million terms cost no accuracy: floats are summed as
// doubles, doubles with the rounding error of each addition kept (Knuth's two-sum).
template <class T> struct Sum;
template <> struct Sum<float> {
  Wide<float> sum = {{all(0.0), all(0.0)}};

  void add(const Lanes<float>& x) {
    const Wide<float> wide = widen(x);
    for (size_t i = 0; i < 2; i++) sum.v[i] = sum.v[i] + wide.v[i];
  }
  Wide<float> by_lane() const { return sum; }
  double total() const {
    double lane[lanes<float>], total = 0;
    __builtin_memcpy(lane, &sum, sizeof lane);
    for (double x : lane) total += x;
    return total;
  }
};
template <> struct Sum<double> {
  Lanes<double> sum = all(0.0), lost = all(0.0);

  void add(const Lanes<double>& x) {
    const Lanes<double> next = sum + x;
    const Lanes<double> back = next - sum;
    lost = lost + ((sum - (next - back)) + (x - back));
    sum = next;
  }
  Wide<double> by_lane() const { return {{sum + lost}}; }
  double total() const {
    double lane[lanes<double>], error[lanes<double>], total = 0, rest = 0;
    store(lane, sum);
    store(error, lost);
    for (size_t i = 0; i < lanes<double>; i++) {
      const double next = total + lane[i], back = next - total;
      rest += (total - (next - back)) + (lane[i] - back) + error[i];
      total = next;
    }
    return total + rest;
  }
};

double log1p_one(double x) {
  double lane[lanes<double>];
  store(lane, log1p_nonnegative(all(x)));
  return lane[0];
}

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
  T sum = 0;
  for (size_t j = 0; j < k; j++) sum += z[j] == -infinity<T> ? 0 : z[j];
  return sum == 0 ? -infinity<T> : sum;
}

// ---- long rows: one class to a lane ----

// The last, partial lanes of a row, filled up with -inf, which adds nothing to any sum.
template <class T> inline Lanes<T> load_tail(const T* from, size_t count) {
  T lane[lanes<T>];
  for (size_t l = 0; l < lanes<T>; l++) lane[l] = l < count ? from[l] : -infinity<T>;
  return load(lane);
}
template <class T> inline void store_tail(T* to, const Lanes<T>& x, size_t count) {
  T lane[lanes<T>];
  store(lane, x);
  for (size_t l = 0; l < count; l++) to[l] = lane[l];
}
template <class T, class F> inline void each(const T* z, size_t k, F f) {
  size_t j = 0;
  for (; j + lanes<T> <= k; j += lanes<T>) f(load(z + j));
  if (j < k) f(load_tail(z + j, k - j));
}
template <class T, class F> inline void transform(const T* z, T* out, size_t k, F f) {
  size_t j = 0;
  for (; j + lanes<T> <= k; j += lanes<T>) store(out + j, f(load(z + j)));
  if (j < k) store_tail(out + j, f(load_tail(z + j, k - j)), k - j);
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

template <class T> struct Row {
  T max;
  double ties, rest;

  // keep(difference, exponential) sees the row lane by lane; its result goes to out, if not null.
  template <class Keep> Row(const T* z, T top, size_t k, T* out, Keep keep) : max(top) {
    const Lanes<T> shift = all(top), zero = all<T>(0), one = all<T>(1);
    Sum<T> sum;
    Lanes<T> equal = zero;
    const auto step = [&](const Lanes<T>& x) {
      const Lanes<T> d = x - shift, e = exp_nonpositive(d);
      sum.add(where_zero(d, zero, e));
      equal = equal + where_zero(d, one, zero);
      return keep(d, e);
    };
    if (out)
      transform(z, out, k, step);
    else
      each(z, k, step);
    T lane[lanes<T>];
    store(lane, equal);
    ties = 0;
    for (T x : lane) ties += x;
    rest = sum.total();
  }
  double log_sum() const { return log1p_one(ties - 1 + rest); }
  T inverse() const { return T(1 / (ties + rest)); }
};

const auto keep_exponential = [](const auto&, const auto& e) { return e; };
const auto keep_difference = [](const auto& d, const auto&) { return d; };

// ---- short rows: one row to a lane ----

template <class T> struct Tile {
  static constexpr size_t height = lanes<T>;
  alignas(lane_bytes) T entry[longest_tiled_row * height];  // entry j of row l at j * height + l
  Lanes<T> max, ties;
  Wide<T> rest;
  size_t count, k;
  bool settled[height];  // the row had no finite maximum and stands here as its limit

  Tile(const T* rows, size_t count, size_t k) : count(count), k(k) {
    for (size_t l = 0; l < count; l++)
      for (size_t j = 0; j < k; j++) entry[j * height + l] = rows[l * k + j];
    for (size_t l = count; l < height; l++)
      for (size_t j = 0; j < k; j++) entry[j * height + l] = 0;
    find_max();
  }
  void find_max() {
    max = all(-infinity<T>);
    for (size_t j = 0; j < k; j++) max = ::max(at(j), max);
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

  template <class Keep> void reduce(Keep keep) {
    const Lanes<T> zero = all<T>(0), one = all<T>(1);
    Sum<T> sum;
    ties = zero;
    for (size_t j = 0; j < k; j++) {
      const Lanes<T> d = at(j) - max, e = exp_nonpositive(d);
      sum.add(where_zero(d, zero, e));
      ties = ties + where_zero(d, one, zero);
      store(entry + j * height, keep(d, e));
    }
    rest = sum.by_lane();
  }
  Wide<T> beyond_one() const {  // the sum of exponentials, less one of the greatest
    const Wide<T> equal = widen(ties);
    return map_wide<T>([&](size_t i) { return equal.v[i] - all(1.0) + rest.v[i]; });
  }
  Lanes<T> others() const { return narrow(beyond_one()); }
  Wide<T> log_sum() const {
    const Wide<T> sum = beyond_one();
    return map_wide<T>([&](size_t i) { return log1p_nonnegative(sum.v[i]); });
  }
  Lanes<T> inverse() const {
    const Wide<T> equal = widen(ties);
    return narrow(map_wide<T>([&](size_t i) { return all(1.0) / (equal.v[i] + rest.v[i]); }));
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

template <class T> void softmax(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      tile.reduce(keep_exponential);
      const Lanes<T> inverse = tile.inverse();
      tile.update([&](const Lanes<T>& e) { return e * inverse; });
      tile.write(out + i * k);
    });
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    T* p = out + i * k;
    T top = greatest(z, k);
    if (!finite(top)) settle(z, p, k, 1), z = p, top = 0;
    const Lanes<T> inverse = all(Row<T>(z, top, k, p, keep_exponential).inverse());
    transform(p, p, k, [&](const Lanes<T>& e) { return e * inverse; });
  }
}

template <class T> void log_softmax(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      tile.reduce(keep_difference);
      const Lanes<T> log_sum = narrow(tile.log_sum());
      tile.update([&](const Lanes<T>& d) { return d - log_sum; });
      tile.write(out + i * k);
    });
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    T* p = out + i * k;
    T top = greatest(z, k);
    if (!finite(top)) settle(z, p, k, 1), z = p, top = 0;
    const Lanes<T> shift = all(top);
    const Lanes<T> log_sum = all(T(Row<T>(z, top, k, nullptr, keep_difference).log_sum()));
    transform(z, p, k, [&](const Lanes<T>& x) { return (x - shift) - log_sum; });
  }
}

template <class T> void logsumexp(const T* rows, T* out, size_t n, size_t k) {
  if (k <= longest_tiled_row)
    return for_tiles(rows, n, k, [&](Tile<T>& tile, size_t i) {
      tile.reduce(keep_difference);
      const Wide<T> max = widen(tile.max), log_sum = tile.log_sum();
      const auto value = map_wide<T>([&](size_t h) { return max.v[h] + log_sum.v[h]; });
      store_tail(out + i, narrow(value), tile.count);
      for (size_t l = 0; l < tile.count; l++)
        if (tile.settled[l]) out[i + l] = limit_of_logsumexp(rows + (i + l) * k, k);
    });
  for (size_t i = 0; i < n; i++) {
    const T* z = rows + i * k;
    const T top = greatest(z, k);
    out[i] = finite(top) ? T(top + Row<T>(z, top, k, nullptr, keep_difference).log_sum())
                         : limit_of_logsumexp(z, k);
  }
}

template <class T>
void cross_entropy_tile(Tile<T>& tile, const int64_t* target, const T* scale, T* loss, T* grad) {
  constexpr size_t height = Tile<T>::height;
  T weight[height], score[height];
  for (size_t l = 0; l < height; l++) {
    weight[l] = l < tile.count && scale ? scale[l] : 1;
    score[l] = tile.entry[(l < tile.count ? target[l] : 0) * height + l];
  }
  const Lanes<T> at_target = load(score), factor = load(weight);
  tile.reduce(keep_exponential);
  const Wide<T> max = widen(tile.max), log_sum = tile.log_sum(), z = widen(at_target);
  const auto value = map_wide<T>([&](size_t h) { return (max.v[h] - z.v[h]) + log_sum.v[h]; });
  store_tail(loss, narrow(value), tile.count);
  if (grad) {
    const Lanes<T> inverse = tile.inverse(), d = at_target - tile.max;
    const Lanes<T> p = exp_nonpositive(d) * inverse, others = tile.others() * inverse;
    T own[height];
    store(own, where_zero(d, all<T>(0) - others, p - all<T>(1)) * factor);
    tile.update([&](const Lanes<T>& e) { return e * (inverse * factor); });
    tile.write(grad);
    for (size_t l = 0; l < tile.count; l++) grad[l * tile.k + target[l]] = own[l];
  }
  for (size_t l = 0; l < tile.count; l++) {
    if (weight[l] != 0) continue;
    loss[l] = 0;
    for (size_t j = 0; grad && j < tile.k; j++) grad[l * tile.k + j] = 0;
  }
}

template <class T>
void cross_entropy_row(const T* z, size_t target, T scale, T* loss, T* grad, size_t k) {
  if (scale == 0) {
    *loss = 0;
    for (size_t j = 0; grad && j < k; j++) grad[j] = 0;
    return;
  }
  T top = greatest(z, k), at_target = z[target];
  T* scratch = nullptr;
  if (!finite(top)) {
    T* settled = grad ? grad : (scratch = (T*)__builtin_malloc(k * sizeof(T)));
    settle(z, settled, k, 1);
    z = settled, top = 0, at_target = z[target];
  }
  const Row<T> row(z, top, k, grad, keep_exponential);
  *loss = T((double(top) - double(at_target)) + row.log_sum());
  if (grad) {
    const T inverse = row.inverse();
    const T own = at_target == top ? -T(row.ties - 1 + row.rest) * inverse : grad[target] * inverse - 1;
    const Lanes<T> factor = all(T(inverse * scale));
    transform(grad, grad, k, [&](const Lanes<T>& e) { return e * factor; });
    grad[target] = own * scale;
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
  for (size_t i = 0; i < n; i++)
    cross_entropy_row(rows + i * k, size_t(target[i]), scale ? scale[i] : T(1), loss + i,
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
      return p + (fma(all(0.0) - p, sum, over) - p * lost) / sum;
    }));
  });
}

// log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|))
template <class T> void log_sigmoid(const T* x, T* out, size_t n) {
  transform(x, out, n, [](const Lanes<T>& x) {
    const Wide<T> e = widen(exp_nonpositive(all<T>(0) - absolute(x))), z = widen(x);
    return narrow(map_wide<T>([&](size_t h) {
      return where_negative(z.v[h], z.v[h], all(0.0)) - log1p_nonnegative(e.v[h]);
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
