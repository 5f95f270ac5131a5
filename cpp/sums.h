// Sums that cost no accuracy, and what every row is reduced to.
#pragma once

#include "elementary.h"

namespace {

template <class T> constexpr T infinity = __builtin_inf();
template <class T> constexpr T not_a_number = __builtin_nan("");

template <class T> inline bool finite(T x) { return x - x == 0; }

template <class T> inline Wide<T> all_wide(double x) {
  return map_wide<T>([=](size_t) { return all(x); });
}

// a + b, and what its rounding lost (Knuth's two-sum).
inline Lanes<double> two_sum(const Lanes<double>& a, const Lanes<double>& b, Lanes<double>& lost) {
  const Lanes<double> sum = a + b, back = sum - a;
  lost = (a - (sum - back)) + (b - back);
  return sum;
}

// A sum in each lane, precise enough that a million terms cost no accuracy: floats are summed as
// doubles, doubles with the rounding error of each addition kept.
template <class T> struct Sum;
template <> struct Sum<float> {
  Wide<float> sum = {{all(0.0), all(0.0)}}, lost = sum;

  void add(const Lanes<float>& x) { add(widen(x)); }
  void add(const Wide<float>& x) { sum = {{sum.v[0] + x.v[0], sum.v[1] + x.v[1]}}; }
  void add_product(const Lanes<float>& a, const Lanes<float>& b) {  // exact in doubles
    const Wide<float> x = widen(a), y = widen(b);
    add(Wide<float>{{x.v[0] * y.v[0], x.v[1] * y.v[1]}});
  }
};
template <> struct Sum<double> {
  Wide<double> sum = {{all(0.0)}}, lost = sum;

  void add(const Lanes<double>& x) {
    Lanes<double> error;
    sum.v[0] = two_sum(sum.v[0], x, error);
    lost.v[0] = lost.v[0] + error;
  }
  void add(const Wide<double>& x) { add(x.v[0]); }
  void add_product(const Lanes<double>& a, const Lanes<double>& b) {
    const Lanes<double> product = a * b;
    add(product);
    lost.v[0] = lost.v[0] + fma_exact(a, b, all(0.0) - product);
  }
};

// What was lost of an infinite sum is inf - inf: of no interest.
inline Lanes<double> known(const Lanes<double>& lost) {
  return map<double>([&](size_t i) {
    return lost.v[i] == lost.v[i] ? lost.v[i] : Vector<double>{};
  });
}
template <class T> inline Wide<T> value(const Sum<T>& x) {
  return map_wide<T>([&](size_t h) { return x.sum.v[h] + known(x.lost.v[h]); });
}

template <class T> constexpr size_t wide_lanes = Wide<T>::count * lanes<double>;

// The sum over all lanes, in every lane; and of as many parts, lane by lane. Both join the first
// half with the second, over and over, so that they agree in every bit. Part 0 is in lane `shift`.
[[gnu::always_inline]] inline Sum<float> joined_lanes(const Sum<float>& x, size_t shift) {
  constexpr size_t n = lanes<double>;
  Wide<float> sum = x.sum;
  if (shift) {
    double twice[4 * n];
    for (size_t h = 0; h < 4; h++) store(twice + h * n, x.sum.v[h % 2]);
    sum = {{load(twice + shift), load(twice + shift + n)}};
  }
  const Lanes<double> half = sum.v[0] + sum.v[1];
  return {all_wide<float>(folded(half, [](auto a, auto b) { return a + b; })), {}};
}
inline Sum<double> joined_lanes(const Sum<double>& x, size_t shift) {
  constexpr size_t n = lanes<double>;
  double twice[2 * n], lost_twice[2 * n];
  for (size_t h = 0; h < 2; h++) {
    store(twice + h * n, x.sum.v[0]);
    store(lost_twice + h * n, x.lost.v[0]);
  }
  double *lane = twice + shift, *lost = lost_twice + shift;
  for (size_t half = lanes<double> / 2; half; half /= 2)
    for (size_t l = 0; l < half; l++) {
      const double sum = lane[l] + lane[l + half], back = sum - lane[l];
      lost[l] += ((lane[l] - (sum - back)) + (lane[l + half] - back)) + lost[l + half];
      lane[l] = sum;
    }
  return {all_wide<double>(lane[0]), all_wide<double>(lost[0])};
}
template <class T> inline Sum<T> joined_parts(Sum<T> (&part)[wide_lanes<T>]) {
  for (size_t half = wide_lanes<T> / 2; half; half /= 2)
    for (size_t l = 0; l < half; l++)
      for (size_t h = 0; h < Wide<T>::count; h++) {
        Lanes<double>&sum = part[l].sum.v[h], &lost = part[l].lost.v[h];
        if constexpr (sizeof(T) == 4) {
          sum = sum + part[l + half].sum.v[h];
        } else {
          Lanes<double> error;
          sum = two_sum(sum, part[l + half].sum.v[h], error);
          lost = lost + (error + part[l + half].lost.v[h]);
        }
      }
  return part[0];
}

// A factor known to twice the type's precision, so that a product is rounded once. Products are
// monotone: what low adds is less than half a unit of what high gives.
template <class T> struct Factor {
  Lanes<T> high, low;
  Lanes<T> operator*(const Lanes<T>& x) const { return fma_exact(x, high, x * low); }
};

// What a row (in all lanes) or a tile of rows (one in each lane) was reduced to.
template <class T> struct Total {
  Wide<T> ties;  // how many scores equal the greatest
  Sum<T> rest;   // the sum of the other exponentials

  // The sum of exponentials, less one of the greatest.
  [[gnu::always_inline]] Wide<T> others() const {
    return map_wide<T>([&](size_t h) {
      return ties.v[h] - all(1.0) + (rest.sum.v[h] + rest.lost.v[h]);
    });
  }
  // log sum exp(score - max) = log1p(others): full relative accuracy where one class is nearly
  // certain
  [[gnu::always_inline]] Wide<T> log_sum() const {
    const Wide<T> sum = others();
    return map_wide<T>([&](size_t h) { return log1p_nonnegative(sum.v[h]); });
  }
  // 1 / sum exp(score - max)
  [[gnu::always_inline]] Factor<T> inverse() const {
    Wide<T> high, low;
    for (size_t h = 0; h < Wide<T>::count; h++) {
      Lanes<double> lost;
      const Lanes<double> sum = two_sum(ties.v[h], rest.sum.v[h], lost);
      const Lanes<double> quotient = all(1.0) / sum, minus = all(0.0) - quotient;
      high.v[h] = quotient;
      if constexpr (sizeof(T) == 4)
        low.v[h] = all(0.0);  // a double is more than a float to twice its precision
      else
        low.v[h] = fma(minus, lost + rest.lost.v[h], fma_exact(minus, sum, all(1.0))) * quotient;
    }
    const Lanes<T> rounded = narrow(high);
    const Wide<T> back = widen(rounded);
    return {rounded, narrow(map_wide<T>(
                         [&](size_t h) { return (high.v[h] - back.v[h]) + low.v[h]; }))};
  }
};

}  // namespace
