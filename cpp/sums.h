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

// The sum over many, joined in the order of their numbers: of lanes (into every lane) or of parts.
template <class T> inline Sum<T> joined_lanes(const Sum<T>& x) {
  double lane[wide_lanes<T>], error[wide_lanes<T>];
  double sum = 0, lost = 0;
  for (size_t h = 0; h < Wide<T>::count; h++) {
    store(lane + h * lanes<double>, x.sum.v[h]);
    store(error + h * lanes<double>, x.lost.v[h]);
  }
  for (size_t i = 0; i < wide_lanes<T>; i++) {
    const double next = sum + lane[i], back = next - sum;
    lost += (sum - (next - back)) + (lane[i] - back) + error[i];
    sum = next;
  }
  return {all_wide<T>(sum), all_wide<T>(lost)};
}
template <class T> inline Sum<T> joined_parts(const Sum<T> (&part)[wide_lanes<T>]) {
  Sum<T> total;
  for (const Sum<T>& x : part)
    for (size_t h = 0; h < Wide<T>::count; h++) {
      Lanes<double> error;
      total.sum.v[h] = two_sum(total.sum.v[h], x.sum.v[h], error);
      total.lost.v[h] = total.lost.v[h] + (error + x.lost.v[h]);
    }
  return total;
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
  Wide<T> others() const {
    return map_wide<T>([&](size_t h) {
      return ties.v[h] - all(1.0) + (rest.sum.v[h] + rest.lost.v[h]);
    });
  }
  // log sum exp(score - max) = log1p(others): full relative accuracy where one class is nearly
  // certain
  Wide<T> log_sum() const {
    const Wide<T> sum = others();
    return map_wide<T>([&](size_t h) { return log1p_nonnegative(sum.v[h]); });
  }
  // 1 / sum exp(score - max)
  Factor<T> inverse() const {
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
