// softmax and its family, each once over units of rows (units.h).
//
// This file is compiled once for each processor level. It calls no inline function of the standard
// library: the linker would keep one copy of it, from any level.

#include "units.h"

namespace {

// Takes up the unit's scores; what the mask leaves out is as if it were -inf.
template <class S, class U> void open(U& unit, const Grid& grid, const Scores& scores) {
  using T = Compute<S>;
  const Array<const uint8_t> where{grid, scores.where};
  unit.open(scores, bool(where), [&](T* numbers) { mask(unit, where, numbers, -infinity<T>); });
}

// reduce(unit, room, meanwhile) leaves in room what apply(state, number of it) makes the answer of,
// and gives the state.
template <class S, class Reduce, class Apply>
void in_two_passes(const Grid& grid, const Scores& scores, const View& to, Reduce reduce,
                   Apply apply) {
  const Array<S> out{grid, to};
  for_units<S>(grid, side_by_side(grid, to, scores.x), [&](auto& unit) {
    return Passes(
        unit, out,
        [&](auto meanwhile) {
          open<S>(unit, grid, scores);
          return reduce(unit, unit.kept(), meanwhile);
        },
        [&](const auto& state) {
          return [=, kept = static_cast<const Compute<S>*>(unit.kept())](size_t at) {
            return apply(state, load(kept + at));
          };
        });
  });
}

template <class S> void softmax(const Grid& grid, const Scores& scores, const View& to) {
  const auto reduce = [](auto& unit, auto* exps, auto meanwhile) {
    const auto keep = [=](size_t at, const auto&, const auto& e) { store(exps + at, e); };
    return unit.add_up(keep, meanwhile).inverse();
  };
  in_two_passes<S>(grid, scores, to, reduce,
                   [](const auto& inverse, const auto& e) { return inverse * e; });
}

template <class S> void log_softmax(const Grid& grid, const Scores& scores, const View& to) {
  const auto reduce = [](auto& unit, auto* differences, auto meanwhile) {
    const auto keep = [=](size_t at, const auto& d, const auto&) { store(differences + at, d); };
    return narrow(unit.reduce(keep, meanwhile).log_sum());
  };
  in_two_passes<S>(grid, scores, to, reduce,
                   [](const auto& log_sum, const auto& d) { return d - log_sum; });
}

template <class S> void logsumexp(const Grid& grid, const Scores& scores, void* out) {
  for_units<S>(grid, side_by_side(grid, scores.x), [&](auto& unit) {
    return [&](size_t i) {
    open<S>(unit, grid, scores);
    const auto value = narrow(unit.log_sum_exp(unit.reduce(keep_nothing, Nothing())));
    store_first(static_cast<S*>(out) + i, value, unit.count());
    };
  });
}

// log p - mean log p over the classes of p > 0, times the temperature
template <class S> void softmax_inverse(const Grid& grid, const Scores& scores, const View& to) {
  using T = Compute<S>;
  const Array<const S> p{grid, scores.x};
  const Array<const uint8_t> where{grid, scores.where};
  const Array<S> out{grid, to};
  for_units<S>(grid, side_by_side(grid, to, scores.x), [&](auto& unit) {
    return [&](size_t) {
    T* logs = unit.kept();
    unit.read(p, logs, T(0));
    if (where) mask(unit, where, logs, T(0));
    unit.clear_beyond(logs);
    typename std::decay_t<decltype(unit)>::Sums sum, count;
    unit.each_position([&](size_t at) {
      const Lanes<T> x = load(logs + at), zero = all<T>(0);
      const Wide<T> wide = widen(x);
      const Lanes<T> log =
          narrow(map_wide<T>([&](size_t h) { return log_nonnegative(wide.v[h]); }));
      sum.add(where_zero(x, zero, log), at);
      count.add(where_zero(x, zero, all<T>(1)), at);
      store(logs + at, log);
    });
    const Wide<T> total = value(unit.joined(sum)), counted = value(unit.joined(count));
    const Wide<T> mean = map_wide<T>([&](size_t h) {
      return where_zero(counted.v[h], all(0.0), total.v[h] / counted.v[h]);
    });
    unit.ask(scores.temperature);
    const Lanes<T> t = load(unit.asked);
    unit.update(out, [&](size_t at) {
      const Wide<T> log = widen(load(logs + at));
      return t * narrow(map_wide<T>([&](size_t h) { return log.v[h] - mean.v[h]; }));
    });
    unit.finish(out);
    };
  });
}

// A gradient, exactly 0 where the mask (as last read) leaves a class out.
template <class T, class U>
Lanes<T> allowed(const Lanes<T>& x, U& unit, const Array<const uint8_t>& where, size_t at) {
  return where ? where_zero(load(unit.allowed() + at), all<T>(0), x) : x;
}

// p (g - sum p g) / temperature
template <class S>
void softmax_vjp(const Grid& grid, const Scores& scores, const View& upstream, const View& to) {
  using T = Compute<S>;
  const Array<const S> probability{grid, scores.x}, gradient{grid, upstream};
  const Array<const uint8_t> where{grid, scores.where};
  const Array<S> out{grid, to};
  for_units<S>(grid, side_by_side(grid, to, scores.x, upstream), [&](auto& unit) {
    return [&](size_t) {
    T *p = unit.kept(), *g = unit.second();
    unit.read(probability, p, T(0));
    unit.read(gradient, g, T(0));
    if (where) mask(unit, where, p, T(0)), mask(unit, where, g, T(0));
    typename std::decay_t<decltype(unit)>::Sums sum;
    unit.each_position([&](size_t at) { sum.add_product(load(p + at), load(g + at), at); });
    const Wide<T> dot = value(unit.joined(sum));
    unit.ask(scores.temperature);
    unit.update(out, [&](size_t at) {
      const Wide<T> wide = widen(load(g + at));
      const Lanes<T> from_mean =
          narrow(map_wide<T>([&](size_t h) { return wide.v[h] - dot.v[h]; }));
      return allowed(unit.cooled(load(p + at) * from_mean), unit, where, at);
    });
    unit.finish(out);
    };
  });
}

// (g - exp(log p) sum g) / temperature
template <class S>
void log_softmax_vjp(const Grid& grid, const Scores& scores, const View& upstream,
                     const View& to) {
  using T = Compute<S>;
  const Array<const S> log_probability{grid, scores.x}, gradient{grid, upstream};
  const Array<const uint8_t> where{grid, scores.where};
  const Array<S> out{grid, to};
  for_units<S>(grid, side_by_side(grid, to, scores.x, upstream), [&](auto& unit) {
    return [&](size_t) {
    T *log_p = unit.kept(), *g = unit.second();
    unit.read(log_probability, log_p, -infinity<T>);
    unit.read(gradient, g, T(0));
    if (where) mask(unit, where, log_p, -infinity<T>), mask(unit, where, g, T(0));
    typename std::decay_t<decltype(unit)>::Sums sum;
    unit.each_position([&](size_t at) { sum.add(load(g + at), at); });
    const Lanes<T> total = narrow(value(unit.joined(sum))), minus = all<T>(0) - total;
    unit.ask(scores.temperature);
    unit.update(out, [&](size_t at) {
      const Lanes<T> x = fma(exp_nonpositive(load(log_p + at)), minus, load(g + at));
      return allowed(unit.cooled(x), unit, where, at);
    });
    unit.finish(out);
    };
  });
}

template <class S, class F> void transform(const void* from, void* to, size_t n, F f) {
  using T = Compute<S>;
  const S* x = static_cast<const S*>(from);
  S* out = static_cast<S*>(to);
  size_t j = 0;
  for (; j + lanes<T> <= n; j += lanes<T>) store(out + j, f(load(x + j)));
  if (j < n) store_first(out + j, f(load_first(x + j, n - j, T(0))), n - j);
}

// sigmoid(x) = (x < 0 ? e : 1) / (1 + e) with e = exp(-|x|); the quotient is corrected for the
// rounding of 1 + e and its own, which would otherwise break the order of neighbours.
template <class S> void sigmoid(const void* from, void* to, size_t n) {
  using T = Compute<S>;
  transform<S>(from, to, n, [](const Lanes<T>& x) {
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
template <class S> void log_sigmoid(const void* from, void* to, size_t n) {
  using T = Compute<S>;
  transform<S>(from, to, n, [](const Lanes<T>& x) {
    const Wide<T> z = widen(x);
    return narrow(map_wide<T>([&](size_t h) {
      const Lanes<double> zero = all(0.0), e = exp_nonpositive(zero - absolute(z.v[h]));
      return where_negative(z.v[h], z.v[h], zero) - log1p_nonnegative(e);
    }));
  });
}

// The exponential that all the others are made of, alone, so that it can be tested.
template <class S> void exponential(const void* from, void* to, size_t n) {
  transform<S>(from, to, n, [](const Lanes<Compute<S>>& x) { return exp_nonpositive(x); });
}

template <class S> constexpr softly::Functions table() {
  return {softmax<S>,         log_softmax<S>, logsumexp<S>,   softmax_inverse<S>, softmax_vjp<S>,
          log_softmax_vjp<S>, sigmoid<S>,     log_sigmoid<S>, exponential<S>};
}

}  // namespace

namespace softly {
extern const Functions SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[4];
const Functions SOFTLY_JOIN(functions_, SOFTLY_LEVEL)[4] = {table<Float16>(), table<BFloat16>(),
                                                            table<float>(), table<double>()};
}  // namespace softly
