// Long rows, one at a time: lanes are neighbouring classes of one row.
#pragma once

#include "heads.h"

namespace {

// A row is walked from the start of the line of memory that holds its first number, so that no
// vector lies across two lines: the number of class j has position shift + j. Lanes without a class
// are filled, with -inf where they must not count in a sum of exponentials.

// f(position, numbers); next is the row that will be read after this one. Gives the position after
// the last vector.
template <class S, class F>
[[gnu::always_inline]] inline size_t walk(const S* z, const S* next, size_t shift, size_t k,
                                          Compute<S> fill, F f) {
  constexpr size_t n = lanes<Compute<S>>;
  const size_t end = shift + k;
  z -= shift, next -= shift;
  size_t at = 0;
  if (shift) f(0, load_between(z, shift, n, fill)), at = n;
  for (; at + n <= end; at += n) {
    __builtin_prefetch(next + at);
    f(at, load(z + at));
  }
  if (at < end) f(at, load_first(z + at, end - at, fill)), at += n;
  return at;
}

template <class S> inline Compute<S> greatest(const S* z, size_t shift, size_t k) {
  using T = Compute<S>;
  constexpr size_t n = lanes<T>, step = 4 * n;  // four chains hide the latency of a maximum
  const size_t end = shift + k;
  z -= shift;
  Lanes<T> m[4] = {all(-infinity<T>), all(-infinity<T>), all(-infinity<T>), all(-infinity<T>)};
  size_t at = 0;
  if (shift) m[0] = load_between(z, shift, n, -infinity<T>), at = n;
  for (; at + step <= end; at += step)
    for (size_t i = 0; i < 4; i++) m[i] = max(load(z + at + i * n), m[i]);
  for (; at + n <= end; at += n) m[0] = max(load(z + at), m[0]);
  if (at < end) m[1] = max(load_first(z + at, end - at, -infinity<T>), m[1]);
  return folded(max(max(m[0], m[1]), max(m[2], m[3])), [](auto a, auto b) { return a > b ? a : b; });
}

// A long row's answer on its way to memory, line by line; f(position) is what will stand there.
template <class S> class Writing {
  using T = Compute<S>;
  static constexpr size_t n = lanes<T>;

 public:
  // What comes before the first whole line.
  template <class F>
  [[gnu::always_inline]] void begin(S* to, size_t k, size_t shift, bool past_caches, F f) {
    const size_t beyond = shift_in_line(to), before = beyond ? n - beyond : 0;
    if (before) store_first(to, f(shift), before);
    to_ = to - shift, first_ = shift + before, end_ = shift + k, past_caches_ = past_caches;
  }
  // The line that starts at one of the positions of this vector.
  template <class F> [[gnu::always_inline]] void step(size_t at, F f) const {
    at += first_ % n;
    if (at - first_ <= end_ - n - first_)
      write(at, f(at));
    else if (first_ < at && at < end_)
      store_first(to_ + at, f(at), end_ - at);
  }
  // All lines from this vector on.
  template <class F> [[gnu::always_inline]] void finish(size_t at, F f) const {
    if (at < first_) at = first_ / n * n;
    for (; at < end_; at += n) step(at, f);
  }

 private:
  S* to_ = nullptr;
  size_t first_ = size_t(1) << 60, end_ = 0;  // positions, of the first line and behind the last
  int past_caches_ = false;

  [[gnu::always_inline]] void write(size_t at, const Lanes<T>& x) const {
    past_caches_ ? stream(to_ + at, x) : store(to_ + at, x);
  }
};

template <class S> class Row : public Heads<Compute<S>>, public Reducing<Row<S>, Compute<S>> {
 public:
  using T = Compute<S>;
  static constexpr size_t height = 1;

  struct Sums {
    Sum<T> sum;
    template <class X> void add(const X& x, size_t) { sum.add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t) { sum.add_product(a, b); }
  };
  Sum<T> joined(Sums sums) const { return joined_lanes(sums.sum, shift_); }

  explicit Row(const Grid& grid)
      : grid_(grid), size_(room(grid)), kept_(size_), line_(size_), allowed_(size_) {}
  ~Row() {
    if (grid_.past_caches) fence();
  }

  // Shifted by up to a line, and read in whole lines from any place.
  static size_t room(const Grid& grid) { return (grid.k / lanes<T> + 3) * lanes<T>; }
  size_t count() const { return 1; }
  size_t shift() const { return shift_; }
  T* kept() { return kept_; }      // room for what takes the place of the scores
  T* second() { return line_; }    // and for numbers of a second array, where no scores are open
  T* allowed() { return allowed_; }

  void take(size_t i, size_t) { row_ = i, shift_ = 0; }
  void ask(const PerRow& temperature) { Heads<T>::ask(temperature, row_, 1); }

  // Takes up the scores: as they stand in memory, or made ready by prepare(numbers).
  template <class Prepare> void open(const Scores& scores, bool must_prepare, Prepare prepare) {
    const Array<S> x{grid_, scores.x};
    gathered_ = must_prepare || !x.dense();
    memory_ = x.row(row_);
    if (gathered_) {
      read(x, line_, -infinity<T>);
      if (must_prepare) prepare(static_cast<T*>(line_));
    } else {
      next_ = row_ + 1 < grid_.stop ? x.row(row_ + 1) : memory_;
      shift_ = shift_in_line(memory_);
    }
    const T top = gathered_ ? greatest<T>(line_, 0, grid_.k) : greatest(memory_, shift_, grid_.k);
    ask(scores.temperature);
    const T t = this->asked[0];
    this->settled = this->needs_settling(top, t);
    bool nan = false;
    if (this->settled) {
      shift_ = 0;
      if (!gathered_) read(x, line_, -infinity<T>);
      gathered_ = true;
      nan = settle<T>(line_, grid_.k, 1, top, t);
    }
    if (this->settled)
      for (size_t l = 0; l < lanes<T>; l++)
        this->top[l] = top, this->nan[l] = nan, this->settled_lane[l] = true;
    this->max = all(this->settled ? T(0) : top);
    this->temperature = all(this->settled ? T(1) : t);
  }

  // The row's numbers in another array, by position; fill stands where there is no class.
  template <class A> void read(const Array<A>& from, T* to, T fill) const {
    const A* at = from.row(row_);
    const size_t k = grid_.k;
    for (size_t i = 0; i < shift_; i++) to[i] = fill;
    for (size_t i = shift_ + k; i < size_; i++) to[i] = fill;
    to += shift_;
    size_t j = 0;
    if constexpr (__is_same(Compute<A>, T))
      for (; from.dense() && j + lanes<T> <= k; j += lanes<T>) store(to + j, load(at + j));
    if (from.dense())
      for (; j < k; j++) to[j] = T(number(at[j]));
    for (; j < k; j++) to[j] = T(number(at[from.offset(j)]));
  }

  template <class F> [[gnu::always_inline]] size_t each(F f) {
    const T *line = line_, fill = -infinity<T>;
    if constexpr (__is_same(S, T))
      return walk(gathered_ ? line : memory_, gathered_ ? line : next_, shift_, grid_.k, fill, f);
    else
      return gathered_ ? walk(line, line, 0, grid_.k, fill, f)
                       : walk(memory_, next_, shift_, grid_.k, fill, f);
  }
  // As each, of the row's numbers in another array, in any order.
  template <class A, class F> void each_of(const Array<A>& from, T fill, F f) {
    if (from.dense()) {
      const A* at = from.row(row_);
      walk(at, at, shift_in_line(at), grid_.k, fill, f);
    } else {
      read(from, line_, fill);
      each_position([&](size_t at) { f(at, load(static_cast<const T*>(line_) + at)); });
    }
  }
  template <class F> void each_position(F f) const {
    for (size_t at = 0; at < shift_ + grid_.k; at += lanes<T>) f(at);
  }
  template <class F> void each_class(F f) const {
    for (size_t j = 0; j < grid_.k; j++) f(shift_ + j, j);
  }
  void clear_beyond(T* numbers) const {  // lanes without a class
    for (size_t i = 0; i < shift_; i++) numbers[i] = 0;
    for (size_t i = shift_ + grid_.k; i < size_; i++) numbers[i] = 0;
  }

  Lanes<T> score(size_t at) {
    if (gathered_) return load(static_cast<const T*>(line_) + at);
    const S* z = memory_ - shift_ + at;
    const size_t end = shift_ + grid_.k;
    return at + lanes<T> <= end ? load(z) : load_first(z, end - at, -infinity<T>);
  }
  T pick(size_t, size_t j) { return gathered_ ? line_[j] : number(memory_[j]); }
  size_t position(size_t, size_t j) const { return shift_ + j; }
  Wide<T> count_over_row(const Lanes<T>& x) const {
    Sum<T> sum;
    sum.add(x);
    return value(joined_lanes(sum, 0));
  }

  // The answer is f(position); then, unless that was for good, single entries may be set; then it
  // is finished.
  template <class F> void update(const Array<S>& out, F f, bool for_good = true) {
    if (out.dense()) {
      Writing<S> writing;
      begin(writing, out, f, for_good);
      return writing.finish(0, f);
    }
    S* to = out.row(row_);
    for (size_t j = 0; j < grid_.k; j += lanes<T>) {
      T lane[lanes<T>];
      store(lane, f(shift_ + j));
      for (size_t l = 0; l < least(lanes<T>, grid_.k - j); l++)
        to[out.offset(j + l)] = stored<S>(lane[l]);
    }
  }
  // Or, where the classes stand side by side, it is written little by little.
  template <class F>
  [[gnu::always_inline]] void begin(Writing<S>& writing, const Array<S>& out, F f,
                                    bool for_good = true) const {
    writing.begin(out.row(row_), grid_.k, shift_, grid_.past_caches && for_good, f);
  }
  void set(const Array<S>& out, size_t, size_t j, T x) const {
    out.row(row_)[out.offset(j)] = stored<S>(x);
  }
  void set_row(const Array<S>& out, size_t, T x) {
    update(out, [=](size_t) { return all(x); });
  }
  void finish(const Array<S>&) const {}

 private:
  const Grid& grid_;
  size_t size_, row_ = 0, shift_ = 0;
  bool gathered_ = false;
  const S *memory_ = nullptr, *next_ = nullptr;
  Room<T> kept_, line_, allowed_;
};

}  // namespace
