// cross_entropy with all its options, once over units of rows (units.h).
//
// With d = z - max (capped, masked, divided by the temperature), p = softmax and a_j how much class
// j is wanted, a row's loss is  sum_j a_j phi(p_j) + z_loss lse^2,  phi(p) = -(1 - p)^focal log p,
// and its gradient  a_j G_j - p_j (sum a G - 2 z_loss lse)  with G = p phi'(p), which is -1 for a
// focal of 0. What is wanted comes in two parts: a few single classes a row, and a dense array.
//
// This file is compiled once for each processor level. It calls no inline function of the standard
// library: the linker would keep one copy of it, from any level.

#include "units.h"

namespace {

using softly::Integers;
using softly::Terms;
using softly::Type;

// Calls f with a pointer to the integers' own type.
template <class F> inline auto with_type(const Integers& x, F f) {
  const auto as = [&](auto one) { return f(static_cast<const decltype(one)*>(x.data)); };
  switch (x.bytes) {
    case 1: return x.is_signed ? as(int8_t()) : as(uint8_t());
    case 2: return x.is_signed ? as(int16_t()) : as(uint16_t());
    case 4: return x.is_signed ? as(int32_t()) : as(uint32_t());
    default: return x.is_signed ? as(int64_t()) : as(uint64_t());
  }
}

// phi and G where the difference is d, the exponential e, and the others' sum and log_sum known.
struct Focal {
  Lanes<double> phi, slope;

  Focal(double gamma, const Lanes<double>& d, const Lanes<double>& e, const Lanes<double>& others,
        const Lanes<double>& log_sum) {
    const Lanes<double> one = all(1.0), zero = all(0.0), most = all(1e300);
    const Lanes<double> odds = e / (others + (one - e));  // p / (1 - p)
    const Lanes<double> u = where_negative(most - odds, most, odds);
    const Lanes<double> weight = exp_nonpositive(all(-gamma) * log1p_nonnegative(u));
    const Lanes<double> log_p = d - log_sum;
    phi = weight * (zero - log_p);
    slope = weight * (where_zero(u, zero, all(gamma) * u * log_p) - one);
  }
};

// a x, where nothing that is not wanted counts: 0 * inf = 0
template <class T> inline Lanes<T> share_of(const Lanes<T>& a, const Lanes<T>& x) {
  return where_zero(a, a, a * x);
}
template <class T> inline Wide<T> share_of(const Wide<T>& a, const Wide<T>& x) {
  return map_wide<T>([&](size_t h) { return share_of(a.v[h], x.v[h]); });
}

// What is wanted of each class of a row, by position: numbers from `first` on to `end`. Vectors
// that reach beyond are read from the edges: 0 where there is no class, then the first numbers; and
// the last ones, then 0. (Masked loads are calls at some levels, and cost all registers.)
template <class T> struct Dense {
  static constexpr size_t n = lanes<T>;
  const T* numbers = nullptr;
  size_t first = 0, end = ~size_t(0) / 2;
  const T* edges = nullptr;

  [[gnu::always_inline]] Lanes<T> operator()(size_t at) const {
    const T* from = numbers + at;
    if (at < first) from = edges + n - (first - at);
    if (at + n > end) from = edges + 2 * n + (at + n - end);
    return load(from);
  }
};

template <class S> struct Job {
  using T = Compute<S>;
  const Grid& grid;
  const Scores& scores;
  const Terms& terms;
  T* loss;
  Array<S> grad;

  bool has_mask() const { return scores.where.data; }
  T class_weight(size_t j) const {
    return terms.class_weight ? static_cast<const T*>(terms.class_weight)[j] : T(1);
  }
};

// The loss of unit after unit; has_dense: more is wanted than a few single classes.
template <class S, class U, bool has_dense> class UnitLoss {
  using T = Compute<S>;
  using L = Lanes<T>;
  using W = Wide<T>;

 public:
  UnitLoss(U& unit, const Job<S>& job)
      : unit_(unit), job_(job), dense_(has_dense ? 2 * room() : 1),
        weight_(job.terms.class_weight ? room() : 1),
        edges_(has_dense ? 2 * edges : 1), curb_(job.terms.cap ? U::room(job.grid) : 1),
        share_(job.terms.wanted * lanes<T>),
        score_(job.terms.wanted * lanes<T>), gradient_(job.terms.wanted * lanes<T>),
        wanted_(job.terms.wanted * lanes<T>), singles_(job.terms.wanted) {
    if (has_dense) clear(dense_, 2 * room()), clear(edges_, 2 * edges);
    if (job.terms.class_weight) {
      clear(weight_, room());
      unit.each_class([&](size_t at, size_t j) { placed(weight_)[at] = job.class_weight(j); });
    }
  }

  ~UnitLoss() { writing_.finish(0, pending_); }
  UnitLoss(const UnitLoss&) = delete;

  void operator()(size_t row) {
    row_ = row;
    read_heads();
    if (U::height == 1 && dead_[0]) return write_dead();
    open();
    want();
    work();
  }

 private:
  static constexpr size_t nowhere = ~size_t(0) / 2, edges = 4 * lanes<T>;
  // What each lane knows of its row; in a Row all lanes are the same.
  static constexpr size_t heads = U::height;

  // The m-th single class of each lane.
  struct Single {
    L d, e;
    W share, phi, slope;
  };

  // The gradient of a long row with no more than one single class, written while the next one is
  // reduced.
  struct Pending {
    const T* exps = nullptr;
    Dense<T> dense;
    Factor<T> inverse;
    L factor, scale;
    bool guarded = false;  // the factor may be infinite, but not what it pulls at p = 0
    size_t wanted = nowhere;  // its position, and the gradient there
    T gradient = 0;

    [[gnu::always_inline]] L operator()(size_t at) const {
      const L p = inverse * load(exps + at);
      L g = guarded ? share_of(p, factor) : p * factor;
      if constexpr (has_dense) g = g - dense(at) * scale;
      if (wanted - at < lanes<T>) {
        T lane[lanes<T>];
        store(lane, g);
        lane[wanted - at] = gradient;
        g = load(lane);
      }
      return g;
    }
  };

  U& unit_;
  const Job<S>& job_;
  Writing<S> writing_;
  Pending pending_;
  // What is wanted of each class, of this row and the one before, and the classes' weights: `placed`
  // where the row's positions are, and 0 where there is no class.
  Room<T> dense_, weight_;
  Room<T> edges_;  // of soft targets read where they lie, likewise
  Dense<T> wanted_of_;
  Room<T> curb_;                      // by position
  Room<T> share_, score_, gradient_;  // by single class and lane
  Room<size_t> wanted_;
  Room<Single> singles_;
  size_t row_ = 0;
  alignas(lane_bytes) T scale_[lanes<T>];
  bool dead_[lanes<T>], any_dead_ = false;
  bool dense_stands_ = false;  // the same for all rows
  size_t now_ = 0;             // which of the two is of this row
  W amount_ = all_wide<T>(0), dense_amount_ = all_wide<T>(0);

  size_t lane(size_t l) const { return least(l, unit_.count() - 1); }
  // to[lane] = f(lane)
  template <class F> void each_lane(T* to, F f) const {
    if (heads == 1)
      store(to, all(T(f(0))));
    else
      for (size_t l = 0; l < heads; l++) to[l] = f(l);
  }

  void read_heads() {
    const Terms& terms = job_.terms;
    const size_t m = terms.wanted;
    if (m)
      with_type(terms.index, [&](const auto* index) {
        for (size_t l = 0; l < heads; l++)
          for (size_t j = 0; j < m; j++)
            wanted_[j * lanes<T> + l] = size_t(index[(row_ + lane(l)) * m + j]);
      });
    if (terms.scale.each)
      each_lane(scale_, [&](size_t l) { return of_row<T>(terms.scale, row_ + lane(l)); });
    else
      store(scale_, all(T(terms.scale.value)));
    any_dead_ = false;
    for (size_t l = 0; l < heads; l++) {
      dead_[l] = scale_[l] == 0 || (terms.has_ignored && int64_t(wanted_[l]) == terms.ignored);
      any_dead_ |= dead_[l];
    }
    if (any_dead_)
      for (size_t l = 0; l < heads; l++)
        for (size_t j = 0; dead_[l] && j < m; j++) wanted_[j * lanes<T> + l] = 0;
  }

  void write_dead() {
    job_.loss[row_] = 0;
    if (job_.grad) unit_.set_row(job_.grad, 0, T(0)), unit_.finish(job_.grad);
  }

  // Takes up the scores, capped and masked.
  void open() {
    const Array<const uint8_t> where{job_.grid, job_.scores.where};
    const T cap = T(job_.terms.cap);
    unit_.open(job_.scores, cap != 0 || where, [&](T* z) {
      if (cap != 0)
        unit_.each_position([&](size_t at) {
          const Tanh<T> bent(load(z + at) / all(cap));
          store(z + at, all(cap) * bent.value);
          store(curb_ + at, bent.slope);
        });
      if (where) mask(unit_, where, z, -infinity<T>);
    });
  }

  size_t room() const { return U::room(job_.grid) + lanes<T>; }
  static void clear(T* numbers, size_t size) {
    for (size_t i = 0; i < size; i++) numbers[i] = 0;
  }
  T* placed(T* numbers) const { return numbers + lanes<T> - unit_.shift(); }
  T* dense() { return placed(dense_ + now_ * room()); }
  // Are soft targets read where they lie, while the row is reduced?
  bool reads_soft() const {
    const Terms& terms = job_.terms;
    constexpr Type same = sizeof(T) == 4 ? Type::f32 : Type::f64;
    const bool as_they_are = !terms.smoothing && !terms.class_weight && !job_.has_mask();
    return heads == 1 && terms.soft.data && terms.soft_type == same && as_they_are &&
           soft<T>().dense();
  }
  template <class A> Array<const A> soft() const { return {job_.grid, job_.terms.soft}; }

  // Which classes are wanted, and how much.
  void want() {
    const Terms& terms = job_.terms;
    if constexpr (has_dense) want_dense();
    amount_ = dense_amount_;
    const T keep = T(1 - terms.smoothing);
    const T* shares = static_cast<const T*>(terms.share);
    for (size_t m = 0; m < terms.wanted; m++) {
      T *share = share_ + m * lanes<T>, *score = score_ + m * lanes<T>;
      const size_t* wanted = wanted_ + m * lanes<T>;
      each_lane(score, [&](size_t l) { return unit_.pick(lane(l), wanted[l]); });
      store(share, all(keep));
      if (terms.class_weight)
        each_lane(share, [&](size_t l) { return keep * job_.class_weight(wanted[l]); });
      if (shares)
        each_lane(share, [&](size_t l) {
          return share[l] * shares[(row_ + lane(l)) * terms.wanted + m];
        });
      if (any_dead_)
        each_lane(share, [&](size_t l) { return dead_[l] ? T(0) : share[l]; });
      const W wide = widen(load(share));
      amount_ = map_wide<T>([&](size_t h) { return amount_.v[h] + wide.v[h]; });
    }
    T amount[lanes<T>];
    store(amount, narrow(amount_));
    for (size_t l = 0; l < heads; l++) {
      dead_[l] |= amount[l] == 0 && terms.z_loss == 0;
      any_dead_ |= dead_[l];
    }
  }

  void want_dense() {
    if (reads_soft()) {
      now_ = 1 - now_;
      constexpr size_t n = lanes<T>;
      const size_t shift = unit_.shift(), k = job_.grid.k;
      const T* q = soft<T>().row(row_);
      T* edge = edges_ + now_ * edges;
      store(edge + n, load(q)), store(edge + 2 * n, load(q + k - n));
      wanted_of_ = {q - shift, shift, shift + k, edge};
      dense_amount_ = all_wide<T>(1);  // near enough, until it is summed
      return;
    }
    make_dense();
    wanted_of_ = {};
    wanted_of_.numbers = dense();
  }
  void make_dense() {
    const Terms& terms = job_.terms;
    if (terms.soft.data) {
      now_ = 1 - now_;
      switch (terms.soft_type) {
        case Type::f16: read_soft<Float16>(); break;
        case Type::bf16: read_soft<BFloat16>(); break;
        case Type::f32: read_soft<float>(); break;
        case Type::f64: read_soft<double>(); break;
      }
    } else if (dense_stands_) {
      return;
    }
    dense_stands_ = !job_.has_mask();
    T* dense = this->dense();
    const T* weight = terms.class_weight ? placed(weight_) : nullptr;
    if (terms.smoothing != 0 || weight) {
      const L spread = this->spread(), keep = all(T(1 - terms.smoothing));
      unit_.each_position([&](size_t at) {
        const L own = terms.soft.data ? load(dense + at) : all<T>(0);
        L a = fma(keep, own, spread);
        if (job_.has_mask()) a = where_zero(load(unit_.allowed() + at), keep * own, a);
        store(dense + at, weight ? a * load(weight + at) : a);
      });
      unit_.clear_beyond(dense);
    }
    typename U::Sums amount;
    unit_.each_position([&](size_t at) { amount.add(load(dense + at), at); });
    dense_amount_ = value(unit_.joined(amount));
  }
  template <class A> void read_soft() {
    unit_.read(soft<A>(), dense(), T(0));
  }
  // Of label smoothing, what each allowed class gets.
  L spread() {
    const double smoothing = job_.terms.smoothing;
    if (!job_.has_mask() || smoothing == 0) return all(T(smoothing / double(job_.grid.k)));
    typename U::Sums allowed;
    unit_.each_position([&](size_t at) { allowed.add(load(unit_.allowed() + at), at); });
    const W count = value(unit_.joined(allowed));
    return narrow(map_wide<T>([&](size_t h) { return all(smoothing) / count.v[h]; }));
  }

  void work() {
    constexpr bool may_wait = heads == 1;
    const Dense<T> dense = wanted_of_;
    const bool sums_amount = has_dense && dense.edges;  // of soft targets just being read
    const bool focal = job_.terms.focal != 0;
    T* exps = unit_.kept();
    typename U::Sums dot, amount;
    const auto meanwhile = [&] {
      if constexpr (may_wait)
        return Unwritten{writing_, pending_};
      else
        return Nothing();
    }();
    const Total<T> total = unit_.reduce([&](size_t at, const L& d, const L& e) {
      if constexpr (has_dense) {
        const L a = dense(at);
        if (sums_amount) amount.add(a, at);
        if (focal) return;  // both loss and gradient come later, and need the scores
        dot.add(share_of(a, d), at);
      }
      store(exps + at, e);
    }, meanwhile);
    if constexpr (may_wait) writing_ = {};
    if (sums_amount) dense_amount_ = value(unit_.joined(amount));
    const W log_sum = total.log_sum(), others = total.others();
    W loss, slope_sum;  // sum a phi, sum a G
    if constexpr (has_dense) {
      if (focal) {
        typename U::Sums phi, slope;
        unit_.each([&](size_t at, const L& z) {
          const L d = unit_.difference(z);
          const W a = widen(dense(at));
          const auto [f, g] = focal_terms(widen(d), widen(exp_nonpositive(d)), others, log_sum);
          phi.add(share_of(a, f), at), slope.add(share_of(a, g), at);
        });
        loss = value(unit_.joined(phi)), slope_sum = value(unit_.joined(slope));
      } else {
        const W sum = value(unit_.joined(dot));
        loss = map_wide<T>([&](size_t h) {
          return dense_amount_.v[h] * log_sum.v[h] - sum.v[h];
        });
        slope_sum = map_wide<T>([&](size_t h) { return all(0.0) - dense_amount_.v[h]; });
      }
    } else {
      loss = slope_sum = all_wide<T>(0);
    }
    for (size_t m = 0; m < job_.terms.wanted; m++) {
      const Single& one = singles_[m] = single(m, others, log_sum);
      const W f = share_of(one.share, one.phi), g = share_of(one.share, one.slope);
      loss = map_wide<T>([&](size_t h) { return loss.v[h] + f.v[h]; });
      slope_sum = map_wide<T>([&](size_t h) { return slope_sum.v[h] + g.v[h]; });
    }
    W pull = all_wide<T>(0);  // 2 z_loss lse
    if (const double z_loss = job_.terms.z_loss; z_loss != 0) {
      const W lse = unit_.log_sum_exp(total);
      pull = map_wide<T>([&](size_t h) { return all(2 * z_loss) * lse.v[h]; });
      loss = map_wide<T>([&](size_t h) {
        return loss.v[h] + all(z_loss) * lse.v[h] * lse.v[h];
      });
    }
    write_loss(loss);
    if (!job_.grad) return;

    const L scale = load(scale_);
    const Factor<T> inverse = total.inverse();
    const L factor =
        narrow(map_wide<T>([&](size_t h) { return pull.v[h] - slope_sum.v[h]; })) * scale;
    // The entries of single classes are known better than by the sum of their parts.
    for (size_t m = 0; m < job_.terms.wanted; m++)
      note_gradient(m, inverse, others, slope_sum, pull, scale);
    const auto kept = [=](size_t at) { return inverse * load(exps + at); };
    if constexpr (may_wait)
      if (job_.terms.wanted <= 1 && job_.grad.dense() && !bends() && !any_dead_ &&
          !(has_dense && focal)) {
        const bool single = job_.terms.wanted == 1, guarded = job_.terms.z_loss != 0;
        pending_ = {exps, dense, inverse, factor, scale, guarded,
                    single ? unit_.position(0, wanted_[0]) : nowhere, single ? gradient_[0] : T(0)};
        return unit_.begin(writing_, job_.grad, pending_);
      }
    if constexpr (!has_dense) {
      if (job_.terms.z_loss == 0)
        write_gradient([=](size_t at) { return kept(at) * factor; });
      else  // the factor may be infinite, but not what it pulls at p = 0
        write_gradient([=](size_t at) { return share_of(kept(at), factor); });
    } else if (focal) {
      write_gradient([&](size_t at) {
        const L d = unit_.difference(unit_.score(at)), e = exp_nonpositive(d);
        const auto [f, slope] = focal_terms(widen(d), widen(e), others, log_sum);
        return share_of(inverse * e, factor) + narrow(share_of(widen(dense(at)), slope)) * scale;
      });
    } else {
      write_gradient([=](size_t at) { return share_of(kept(at), factor) - dense(at) * scale; });
    }
  }

  // The gradient is entry(position), and at single classes what was noted.
  bool bends() const { return job_.terms.cap || job_.has_mask() || unit_.scaled; }
  template <class Entry> void write_gradient(Entry entry) {
    if (bends())
      write_entries([&](size_t at) { return finished(entry(at), at); });
    else
      write_entries(entry);
  }
  template <class Entry> void write_entries(Entry entry) {
    const size_t wanted = job_.terms.wanted;
    unit_.update(job_.grad, entry, wanted == 0);
    for (size_t m = 0; m < wanted; m++)
      for (size_t l = 0; l < unit_.count(); l++)
        unit_.set(job_.grad, l, wanted_[m * lanes<T> + l], gradient_[m * lanes<T> + l]);
    for (size_t l = 0; any_dead_ && l < unit_.count(); l++)
      if (dead_[l]) unit_.set_row(job_.grad, l, T(0));
    unit_.finish(job_.grad);
  }

  // The gradient's way back through the temperature, the cap and the mask.
  L finished(L g, size_t at) {
    if (job_.terms.cap) g = g * load(curb_ + at);
    if (job_.has_mask()) g = where_zero(load(unit_.allowed() + at), all<T>(0), g);
    return unit_.cooled(g);
  }

  struct FocalTerms {
    W phi, slope;
  };
  FocalTerms focal_terms(const W& d, const W& e, const W& others, const W& log_sum) const {
    FocalTerms terms;
    for (size_t h = 0; h < W::count; h++) {
      const Focal f(job_.terms.focal, d.v[h], e.v[h], others.v[h], log_sum.v[h]);
      terms.phi.v[h] = f.phi, terms.slope.v[h] = f.slope;
    }
    return terms;
  }

  Single single(size_t m, const W& others, const W& log_sum) {
    const L z = load(score_ + m * lanes<T>), d = unit_.difference(z), e = exp_nonpositive(d);
    const W wide = unit_.wide_difference(z), share = widen(load(share_ + m * lanes<T>));
    if (job_.terms.focal != 0) {
      const FocalTerms terms = focal_terms(wide, widen(e), others, log_sum);
      return {d, e, share, terms.phi, terms.slope};
    }
    const W phi = map_wide<T>([&](size_t h) { return log_sum.v[h] - wide.v[h]; });
    return {d, e, share, phi, all_wide<T>(-1)};
  }

  // The gradient at the m-th single classes. Where p is nearly 1, p - 1 is minus the others.
  void note_gradient(size_t m, const Factor<T>& inverse, const W& others, const W& slope_sum,
                     const W& pull, const L& scale) {
    const Single& one = singles_[m];
    const W a = all_shares(m);
    const L p = inverse * one.e;
    const L less = where_zero(one.d, all<T>(0) - inverse * narrow(others), p - all<T>(1));
    const W wide_p = widen(p), wide_less = widen(less);
    L g = narrow(map_wide<T>([&](size_t h) {
      const Lanes<double> rest = share_of(a.v[h], one.slope.v[h]) - slope_sum.v[h];
      return (rest - slope_sum.v[h] * wide_less.v[h]) + share_of(wide_p.v[h], pull.v[h]);
    }));
    if (job_.terms.cap || job_.has_mask()) {
      T curb[lanes<T>];
      each_lane(curb, [&](size_t l) {
        const size_t at = unit_.position(lane(l), wanted_[m * lanes<T> + l]);
        const bool allowed = !job_.has_mask() || unit_.allowed()[at] != 0;
        return !allowed ? T(0) : job_.terms.cap ? curb_[at] : T(1);
      });
      g = where_zero(load(curb), all<T>(0), g * load(curb));
    }
    store(gradient_ + m * lanes<T>, unit_.cooled(g * scale));
  }
  // How much the m-th single classes are wanted in all, as others of the row may be the same.
  W all_shares(size_t m) {
    if (!has_dense && job_.terms.wanted == 1) return singles_[m].share;
    T share[lanes<T>];
    const T* dense = has_dense ? this->dense() : nullptr;
    each_lane(share, [&](size_t l) {
      const size_t j = wanted_[m * lanes<T> + l];
      T sum = dense ? dense[unit_.position(lane(l), j)] : T(0);
      for (size_t n = 0; n < job_.terms.wanted; n++)
        if (wanted_[n * lanes<T> + l] == j) sum += share_[n * lanes<T> + l];
      return sum;
    });
    return widen(load(share));
  }

  void write_loss(const W& wide) {
    store_first(job_.loss + row_, narrow(wide), unit_.count());
    for (size_t l = 0; any_dead_ && l < unit_.count(); l++)
      if (dead_[l]) job_.loss[row_ + l] = 0;
  }
};

template <class S>
void cross_entropy(const Grid& grid, const Scores& scores, const Terms& terms, void* loss,
                   const View& grad) {
  const Job<S> job{grid, scores, terms, static_cast<Compute<S>*>(loss), {grid, grad}};
  const auto run = [&](auto has_dense) {
    for_units<S>(grid, side_by_side(grid, grad, scores.x, terms.soft), [&](auto& unit) {
      return UnitLoss<S, std::decay_t<decltype(unit)>, has_dense.value>(unit, job);
    });
  };
  if (terms.soft.data || terms.smoothing != 0)
    run(std::true_type());
  else
    run(std::false_type());
}

template <class S>
size_t check_soft(const Grid& grid, const View& soft, const PerRow& scale, double tolerance) {
  using T = Compute<S>;
  const Array<const S> q{grid, soft};
  size_t bad = grid.stop;
  for_units<S>(grid, side_by_side(grid, soft), [&](auto& unit) {
    return [&](size_t row) {
      typename std::decay_t<decltype(unit)>::Sums sum;
      Lanes<T> low = all<T>(0);
      unit.each_of(q, T(0), [&](size_t at, const Lanes<T>& x) {
        sum.add(x, at);
        low = max(all<T>(0) - x, low);
      });
      T total[lanes<T>], negative[lanes<T>];
      store(total, narrow(value(unit.joined(sum))));
      store(negative, low);
      double below = 0;
      for (size_t l = 0; l < lanes<T>; l++) below = negative[l] > below ? negative[l] : below;
      for (size_t l = 0; l < unit.count(); l++) {
        const double off = total[l] - 1, least_share = unit.height == 1 ? below : negative[l];
        const bool sound = off <= tolerance && off >= -tolerance && least_share == 0;
        if (!sound && row + l < bad && of_row<T>(scale, row + l) != 0) bad = row + l;
      }
    };
  });
  return bad;
}

template <class S> double total(const void* from, size_t n) {
  using T = Compute<S>;
  const T* x = static_cast<const T*>(from);
  Sum<T> sum;
  size_t j = 0;
  for (; j + lanes<T> <= n; j += lanes<T>) sum.add(load(x + j));
  if (j < n) sum.add(load_first(x + j, n - j, T(0)));
  double lane[lanes<double>];
  store(lane, value(joined_lanes(sum, 0)).v[0]);
  return lane[0];
}

template <class I>
softly::Survey survey_of(const I* target, size_t start, size_t stop, uint64_t classes,
                         bool has_ignored, int64_t ignored) {
  uint64_t counted = 0, bad = 0;
  for (size_t i = start; i < stop; i++) {
    const int64_t t = int64_t(target[i]);
    const bool counts = !(has_ignored & (t == ignored));
    counted += counts;
    bad |= counts & (uint64_t(t) >= classes);
  }
  size_t first = stop;
  for (size_t i = start; bad && first == stop; i++) {
    const int64_t t = int64_t(target[i]);
    if (!(has_ignored && t == ignored) && uint64_t(t) >= classes) first = i;
  }
  return {counted, first};
}

softly::Survey survey(const Integers& x, size_t start, size_t stop, uint64_t classes,
                      bool has_ignored, int64_t ignored) {
  return with_type(x, [&](const auto* target) {
    return survey_of(target, start, stop, classes, has_ignored, ignored);
  });
}

template <class S> constexpr softly::Losses table() {
  return {cross_entropy<S>, check_soft<S>, total<S>};
}

}  // namespace

namespace softly {
extern const Losses SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[4];
const Losses SOFTLY_JOIN(losses_, SOFTLY_LEVEL)[4] = {table<Float16>(), table<BFloat16>(),
                                                      table<float>(), table<double>()};
extern const SurveyTargets SOFTLY_JOIN(survey_, SOFTLY_LEVEL);
const SurveyTargets SOFTLY_JOIN(survey_, SOFTLY_LEVEL) = survey;
}  // namespace softly
