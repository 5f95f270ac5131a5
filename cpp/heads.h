// What is known of a row before it is worked on, and how it is reduced.
#pragma once

#include "arrays.h"
#include "sums.h"

namespace {

// A row without a finite maximum, or at a temperature of 0 or infinity, as the row that gives its
// limit: what shares the whole at 0, the rest at -inf; a row of only -inf, or one with a NaN, has no
// answer. Entries stand `stride` apart. Says whether there was a NaN.
template <class T> bool settle(T* z, size_t k, size_t stride, T top, T temperature) {
  bool nan = false;
  for (size_t j = 0; j < k; j++) nan |= z[j * stride] != z[j * stride];
  const bool sharp = temperature == 0 || top == infinity<T>;
  for (size_t j = 0; j < k; j++) {
    T& x = z[j * stride];
    const bool shares = sharp ? x == top : x > -infinity<T>;
    x = nan || top == -infinity<T> ? not_a_number<T> : shares ? 0 : -infinity<T>;
  }
  return nan;
}

// How scores are read: less the greatest of their row, divided by its temperature; of the rows of
// a unit, one to a lane (or the same in every lane).
template <class T> struct Origin {
  Lanes<T> max, temperature;
  bool scaled = false;  // by a temperature other than 1

  Lanes<T> difference(const Lanes<T>& z) const {
    const Lanes<T> d = z - max;
    return scaled ? d / temperature : d;
  }
};

// What is known of the rows of a unit.
template <class T> struct Heads : Origin<T> {
  using Origin<T>::max, Origin<T>::temperature, Origin<T>::scaled;
  bool settled = false;
  T top[lanes<T>], asked[lanes<T>];  // the greatest score and the temperature, before settling
  bool settled_lane[lanes<T>], nan[lanes<T>];

  const Origin<T>& origin() const { return *this; }
  Wide<T> wide_difference(const Lanes<T>& z) const {
    const Wide<T> a = widen(z), b = widen(max), t = widen(temperature);
    return map_wide<T>([&](size_t h) {
      const Lanes<double> d = a.v[h] - b.v[h];
      return scaled ? d / t.v[h] : d;
    });
  }
  [[gnu::always_inline]] void ask(const PerRow& t, size_t row, size_t count) {
    scaled = t.each || t.value != 1;
    if (!t.each)
      store(asked, all(T(t.value)));
    else
      for (size_t l = 0; l < lanes<T>; l++) asked[l] = of_row<T>(t, row + least(l, count - 1));
  }
  // x / temperature as it was asked for; 0 / 0 is the limit 0.
  Lanes<T> cooled(const Lanes<T>& x) const {
    return scaled ? where_zero(x, x, x / load(asked)) + all<T>(0) : x;
  }
  Wide<T> log_sum_exp(const Total<T>& total) const {
    const Wide<T> top_score = widen(max), t = widen(temperature), log = total.log_sum();
    Wide<T> value = map_wide<T>([&](size_t h) {
      return (scaled ? top_score.v[h] / t.v[h] : top_score.v[h]) + log.v[h];
    });
    if (!settled) return value;
    double lane[wide_lanes<T>];
    for (size_t h = 0; h < Wide<T>::count; h++) store(lane + h * lanes<double>, value.v[h]);
    for (size_t l = 0; l < lanes<T>; l++) {
      if (!settled_lane[l]) continue;
      if (nan[l])
        lane[l] = not_a_number<double>;
      else if (top[l] - top[l] != 0)
        lane[l] = top[l];
      else if (asked[l] == 0 && top[l] != 0)
        lane[l] = top[l] > 0 ? infinity<double> : -infinity<double>;
    }
    for (size_t h = 0; h < Wide<T>::count; h++) value.v[h] = load(lane + h * lanes<double>);
    return value;
  }

 protected:
  static bool needs_settling(T top, T t) { return !finite(top) || t == 0 || t == infinity<T>; }
};

// What every unit does with its scores. (What a loop counts in stays local and leaves by value: the
// compiler would keep it in memory if anybody had its address. For the same reason all that a row
// needs is inlined.)
template <class Unit, class T> struct Reducing {
  // As reduce, where no logarithm is taken of the sum: the greatest need not be kept apart.
  template <class Keep, class Meanwhile>
  [[gnu::always_inline]] Total<T> add_up(Keep keep, Meanwhile meanwhile) {
    Unit& unit = *static_cast<Unit*>(this);
    typename Unit::Sums sum;
    const Origin<T> origin = unit.origin();
    const size_t end = unit.each([&](size_t at, const Lanes<T>& z) __attribute__((always_inline)) {
      const Lanes<T> d = origin.difference(z), e = exp_nonpositive(d);
      sum.add(e, at);
      meanwhile.step(at);
      keep(at, d, e);
    });
    meanwhile.finish(end);
    return {all_wide<T>(0), unit.joined(sum)};
  }

  // keep(position, difference, exponential) takes what it needs on the way; meanwhile is other work,
  // done step by step before it.
  template <class Keep, class Meanwhile>
  [[gnu::always_inline]] Total<T> reduce(Keep keep, Meanwhile meanwhile) {
    Unit& unit = *static_cast<Unit*>(this);
    typename Unit::Sums rest;
    Lanes<T> ties = all<T>(0);
    const Origin<T> origin = unit.origin();
    const size_t end = unit.each([&](size_t at, const Lanes<T>& z) __attribute__((always_inline)) {
      const Lanes<T> zero = all<T>(0), d = origin.difference(z), e = exp_nonpositive(d);
      rest.add(where_zero(d, zero, e), at);
      ties = ties + where_zero(d, all<T>(1), zero);
      meanwhile.step(at);
      keep(at, d, e);
    });
    meanwhile.finish(end);
    return {unit.count_over_row(ties), unit.joined(rest)};
  }
};

}  // namespace
