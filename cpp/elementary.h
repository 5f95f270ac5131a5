// The exponential and the logarithm that every kernel is made of.
#pragma once

#include "lanes.h"

namespace {

// Constants of exp: n ln2 is taken from x in two steps, the first exact; then
// exp(r) = 1 + (r + r^2 q(r)), with q the minimax polynomial on |r| <= ln2 / 2.
template <class T> struct Exp;
template <> struct Exp<float> {
  static constexpr float lowest = -104.0f;  // exp of it, and of all below, rounds to 0
  static constexpr float log2e = 0x1.715476p+0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr int mantissa = 23, lift = 64;
  static constexpr float round = 0x1.8p23f + lift, unlift = 0x1p-64f;
  static constexpr float q[] = {0x1.fffffb97a5fddp-2f, 0x1.55549104290d9p-3f, 0x1.5558f2f627353p-5f,
                                0x1.123a1f4696842p-7f, 0x1.6a23cf4eb56d8p-10f};
};
template <> struct Exp<double> {
  static constexpr double lowest = -750.0;
  static constexpr double log2e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fefa3p-1,
                          ln2_low = 0x1.3de6af278ece6p-42;
  static constexpr int mantissa = 52, lift = 128;
  static constexpr double round = 0x1.8p52 + lift, unlift = 0x1p-128;
  static constexpr double q[] = {
      0x1.000000000000ap-1,  0x1.55555555554f9p-3,  0x1.555555555083ep-5,  0x1.1111111127d0ep-7,
      0x1.6c16c18438b11p-10, 0x1.a01a012a0f35cp-13, 0x1.a01999e26209fp-16, 0x1.71df25b30d420p-19,
      0x1.28ad9b8648615p-22, 0x1.ad7f3ee5d2f80p-26};
};

// The parts that exp(x), x <= 0, is put together from: exp(x) = 2^n (1 + p), |p| < 0.42.
template <class T> struct ExpParts {
  Lanes<T> n, shifted, p;

  [[gnu::always_inline]] explicit ExpParts(Lanes<T> x) {
    using C = Exp<T>;
    x = max(all<T>(C::lowest), x);
    shifted = fma(x, all(C::log2e), all(C::round));
    n = shifted - all(C::round);
    // x - n ln2 in two parts, the first exact: rounding their sum would cost a quarter of an ulp.
    const Lanes<T> high = fma(n, all(-C::ln2_high), x), low = n * all(-C::ln2_low);
    const Lanes<T> r = high + low;
    constexpr int degree = sizeof(C::q) / sizeof(T) - 1;
    Lanes<T> q = all(C::q[degree]);
    for (int i = degree - 1; i >= 0; i--) q = fma(q, r, all(C::q[i]));
    p = high + fma(r * r, q, low);
  }
  [[gnu::always_inline]] Lanes<T> exp() const { return scaled(all<T>(1) + p); }
  Lanes<T> expm1() const { return scaled(p) + (scaled(all<T>(1)) - all<T>(1)); }

 private:
  [[gnu::always_inline]] Lanes<T> scaled(const Lanes<T>& y) const {
    return times_power_of_two(y, n, shifted, Exp<T>::mantissa, Exp<T>::unlift);
  }
};

// exp(x) for x <= 0: within 1 ulp and monotone as rounded; exp(-inf) = 0, NaN stays NaN.
// Each step is monotone in x: the error of q reaches the result only through r^2 q, whose ulps are
// smaller than those of the part that is exact.
template <class T> [[gnu::always_inline]] inline Lanes<T> exp_nonpositive(const Lanes<T>& x) {
  return ExpParts<T>(x).exp();
}

// tanh(x) by expm1(-2|x|), and its derivative by exp(-2|x|): neither cancels.
template <class T> struct Tanh {
  Lanes<T> value, slope;

  explicit Tanh(const Lanes<T>& x) {
    const Lanes<T> one = all<T>(1), size = absolute(x);
    const ExpParts<T> parts(all<T>(0) - (size + size));
    const Lanes<T> m = parts.expm1(), e = parts.exp(), sum = one + e;
    const Lanes<T> t = (all<T>(0) - m) / (all<T>(2) + m);
    value = where_negative(x, all<T>(0) - t, t);
    slope = all<T>(4) * e / (sum * sum);
  }
};

// log(u + lost) for a normal u > 0 and a lost that is small beside it; NaN stays NaN.
// The method and the coefficients are those of FreeBSD's msun, e_log.c and s_log1p.c.
inline Lanes<double> log_of_sum(const Lanes<double>& u, const Lanes<double>& lost) {
  // u = 2^k m, with m between the roots of 1/2 and 2
  constexpr uint64_t sqrt_half = 0x3fe6a09e667f3bcd, integer = 0x4330000000000000, bias = 2048;
  const auto exponent = [&](size_t i) {  // k + bias, not negative
    return ((Bits<double>)u.v[i] + ((bias << 52) - sqrt_half)) >> 52;
  };
  const Lanes<double> m = map<double>([&](size_t i) {
    return (Vector<double>)((Bits<double>)u.v[i] - ((exponent(i) - bias) << 52));
  });
  const Lanes<double> k = map<double>([&](size_t i) {
    return (Vector<double>)(exponent(i) | integer) - (0x1p52 + bias);
  });
  const Lanes<double> f = m - all(1.0);
  const Lanes<double> s = f / (all(2.0) + f);
  const Lanes<double> z = s * s;
  constexpr double coefficients[] = {
      1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
      2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01};
  Lanes<double> p = all(1.479819860511658591e-01);
  for (double c : coefficients) p = fma(p, z, all(c));
  const Lanes<double> half_square = all(0.5) * f * f;
  const Lanes<double> tail = fma(k, all(1.90821492927058770002e-10), lost / u);
  const Lanes<double> fraction = f - (half_square - fma(s, fma(p, z, half_square), tail));
  return fma(k, all(6.93147180369123816490e-01), fraction);
}

// log(1 + x) for x >= 0, with full relative accuracy near 0.
inline Lanes<double> log1p_nonnegative(const Lanes<double>& x) {
  const Lanes<double> one = all(1.0), u = one + x, back = u - one;
  return log_of_sum(u, (one - (u - back)) + (x - back));  // u + lost = 1 + x exactly
}

// log(x) for x >= 0; negative numbers, infinity and NaN give NaN.
inline Lanes<double> log_nonnegative(const Lanes<double>& x) {
  constexpr double least_normal = 0x1p-1022, lift = 54;
  const Lanes<double> zero = all(0.0), below = x - all(least_normal);
  const Lanes<double> u = where_negative(below, x * all(0x1p54), x);
  const Lanes<double> log = log_of_sum(u, zero) +
      where_negative(below, all(-lift * 0.693147180559945309417232), zero);
  const Lanes<double> at_zero = where_zero(x, all(-__builtin_inf()), log);
  return where_negative(x, all(__builtin_nan("")), at_zero) + (x - x);
}

}  // namespace
