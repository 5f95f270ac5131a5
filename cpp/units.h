// How rows are worked on: a unit is what the lanes hold at once. A kernel is written once, over
// units; it sees positions, at each of which lie the scores of one class a lane or one lane a class:
//
//   Row         long rows, one at a time: lanes are neighbouring classes of one row
//   Tile        rows of up to 48 classes: lanes are rows, positions are classes
//   Tile, tall  longer rows that lie side by side in memory, as columns do
//
// A row's sums are added in an order that depends on its length alone: class after class where it
// has up to 48, else in as many parts as there are lanes, class j in part j modulo lanes. So a row
// gives the same bits alone as in a batch, along whichever axis it lies.
#pragma once

#include <new>

#include "kernels.h"
#include "sums.h"

namespace {

using softly::Grid;
using softly::PerRow;
using softly::ptrdiff_t;
using softly::Scores;
using softly::View;

constexpr size_t longest_short_row = 48;
constexpr size_t longest_picked_row = 5;  // beyond, transposing takes fewer shuffles
constexpr size_t fewest_columns = 8;  // side by side, for which a tall tile is worth its idle lanes

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

template <class T> inline T of_row(const PerRow& x, size_t i) {
  return x.each ? static_cast<const T*>(x.each)[i] : T(x.value);
}

// A few blocks of memory that a thread keeps from one call to the next: the system would hand out
// fresh pages for each large one, and zero them.
class Spares {
 public:
  ~Spares() {
    for (Block& spare : blocks_) release(spare.data);
  }
  void* take(size_t bytes) {
    for (Block& spare : blocks_)
      if (spare.data && spare.bytes >= bytes && spare.bytes / 4 <= bytes) {
        void* data = spare.data;
        spare.data = nullptr;
        return data;
      }
    return ::operator new(bytes, std::align_val_t{lane_bytes});
  }
  void give(void* data, size_t bytes) {
    for (Block& spare : blocks_)
      if (!spare.data && bytes <= largest) {
        spare = {data, bytes};
        return;
      }
    release(data);
  }

 private:
  static constexpr size_t largest = 1 << 23;
  struct Block {
    void* data = nullptr;
    size_t bytes = 0;
  };
  Block blocks_[4];

  static void release(void* data) { ::operator delete(data, std::align_val_t{lane_bytes}); }
};
thread_local Spares spares;

// Room for numbers beside the arrays, aligned and never read before written: on the stack where
// at most `few` are needed.
template <class T, size_t few = 0> class Room {
 public:
  explicit Room([[maybe_unused]] size_t size) {
    if constexpr (few == 0) {
      bytes_ = size * sizeof(T);
      data_ = static_cast<T*>(spares.take(bytes_));
    }
  }
  ~Room() {
    if constexpr (few == 0) spares.give(data_, bytes_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  operator T*() { return data_; }
  operator const T*() const { return data_; }

 private:
  alignas(lane_bytes) std::conditional_t<few == 0, T*, T[few ? few : 1]> data_;
  size_t bytes_ = 0;
};

// Are rows neighbours, entry by entry, as columns are, and enough of them?
[[gnu::always_inline]] inline bool columns(const Grid& grid, const View& view) {
  const size_t last = grid.dimensions - 1;
  return view.data && !view.offsets && view.step != 1 && view.stride[last] == 1 &&
         grid.size[last] >= fewest_columns;
}

// An array's numbers, by row and class.
template <class S> struct Array {
  const Grid& grid;
  const View& view;

  explicit operator bool() const { return view.data; }
  [[gnu::always_inline]] S* row(size_t i) const {
    S* at = static_cast<S*>(view.data);
    if (grid.dimensions == 1) return at + ptrdiff_t(i) * view.stride[0];
    for (size_t d = grid.dimensions; d-- > 0; i /= grid.size[d])
      at += ptrdiff_t(i % grid.size[d]) * view.stride[d];
    return at;
  }
  ptrdiff_t offset(size_t j) const {
    return view.offsets ? view.offsets[j] : ptrdiff_t(j) * view.step;
  }
  // A row's entries are neighbours.
  bool dense() const { return view.step == 1 && !view.offsets; }
  [[gnu::always_inline]] bool columns() const { return ::columns(grid, view); }
  // All rows in one piece.
  [[gnu::always_inline]] bool contiguous() const {
    return dense() && grid.dimensions == 1 && view.stride[0] == ptrdiff_t(grid.k);
  }
};

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

// What is known of the rows of a unit, one to a lane (or the same in every lane).
template <class T> struct Heads {
  Lanes<T> max, temperature;
  bool scaled = false;  // by a temperature other than 1
  bool settled = false;
  T top[lanes<T>], asked[lanes<T>];  // the greatest score and the temperature, before settling
  bool settled_lane[lanes<T>], nan[lanes<T>];

  Lanes<T> difference(const Lanes<T>& z) const {
    const Lanes<T> d = z - max;
    return scaled ? d / temperature : d;
  }
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

// What every unit does with its scores.
template <class Unit, class T> struct Reducing {
  // As reduce, where no logarithm is taken of the sum: the greatest need not be kept apart.
  template <class Keep> Total<T> add_up(Keep keep) {
    Unit& unit = *static_cast<Unit*>(this);
    typename Unit::Sums sum;
    unit.each([&](size_t at, const Lanes<T>& z) {
      const Lanes<T> d = unit.difference(z), e = exp_nonpositive(d);
      sum.add(e, at);
      keep(at, d, e);
    });
    return {all_wide<T>(0), sum.joined()};
  }

  // keep(position, difference, exponential) takes what it needs on the way.
  template <class Keep> Total<T> reduce(Keep keep) {
    Unit& unit = *static_cast<Unit*>(this);
    typename Unit::Sums rest;
    Lanes<T> ties = all<T>(0);
    unit.each([&](size_t at, const Lanes<T>& z) {
      const Lanes<T> zero = all<T>(0), d = unit.difference(z), e = exp_nonpositive(d);
      rest.add(where_zero(d, zero, e), at);
      ties = ties + where_zero(d, all<T>(1), zero);
      keep(at, d, e);
    });
    return {unit.count_over_row(ties), rest.joined()};
  }
};

// ---- long rows ----

// next is the row that will be read after this one.
template <class T, class F> inline void walk(const T* z, const T* next, size_t k, F f) {
  using C = Compute<T>;
  size_t j = 0;
  for (; j + lanes<C> <= k; j += lanes<C>) {
    __builtin_prefetch(next + j, 0, 2);
    f(j, load(z + j));
  }
  if (j < k) f(j, load_first(z + j, k - j, -infinity<C>));  // adds nothing to any sum
}

template <class S> inline Compute<S> greatest(const S* z, size_t k) {
  using T = Compute<S>;
  constexpr size_t step = 4 * lanes<T>;  // four chains hide the latency of a maximum
  Lanes<T> m[4] = {all(-infinity<T>), all(-infinity<T>), all(-infinity<T>), all(-infinity<T>)};
  size_t j = 0;
  for (; j + step <= k; j += step)
    for (size_t i = 0; i < 4; i++) m[i] = max(load(z + j + i * lanes<T>), m[i]);
  for (; j + lanes<T> <= k; j += lanes<T>) m[0] = max(load(z + j), m[0]);
  if (j < k) m[0] = max(load_first(z + j, k - j, -infinity<T>), m[0]);
  return folded(max(max(m[0], m[1]), max(m[2], m[3])), [](auto a, auto b) { return a > b ? a : b; });
}

template <class S> class Row : public Heads<Compute<S>>, public Reducing<Row<S>, Compute<S>> {
 public:
  using T = Compute<S>;
  static constexpr size_t height = 1;

  struct Sums {
    Sum<T> sum;
    template <class X> void add(const X& x, size_t) { sum.add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t) { sum.add_product(a, b); }
    Sum<T> joined() const { return joined_lanes(sum); }
  };

  explicit Row(const Grid& grid)
      : grid_(grid), size_(room(grid)), kept_(size_), line_(size_), allowed_(size_) {}
  ~Row() {
    if (grid_.past_caches) fence();
  }

  static size_t room(const Grid& grid) { return (grid.k / lanes<T> + 2) * lanes<T>; }
  size_t count() const { return 1; }
  T* kept() { return kept_; }      // room for what takes the place of the scores
  T* second() { return line_; }    // and for numbers of a second array, where no scores are open
  T* allowed() { return allowed_; }

  void take(size_t i, size_t) { row_ = i; }
  void ask(const PerRow& temperature) { Heads<T>::ask(temperature, row_, 1); }

  // Takes up the scores: as they stand in memory, or made ready by prepare(numbers).
  template <class Prepare> void open(const Scores& scores, bool must_prepare, Prepare prepare) {
    const Array<S> x{grid_, scores.x};
    gathered_ = must_prepare || !x.dense();
    if (gathered_) read(x, line_, -infinity<T>);
    if (must_prepare) prepare(static_cast<T*>(line_));
    memory_ = x.row(row_);
    const T top = gathered_ ? greatest<T>(line_, grid_.k) : greatest(memory_, grid_.k);
    ask(scores.temperature);
    const T t = this->asked[0];
    this->settled = this->needs_settling(top, t);
    bool nan = false;
    if (this->settled) {
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

  // The row's numbers in another array, filled up to whole lanes.
  template <class A> void read(const Array<A>& from, T* to, T fill) const {
    const A* at = from.row(row_);
    const size_t k = grid_.k;
    size_t j = 0;
    if constexpr (__is_same(Compute<A>, T))
      for (; from.dense() && j + lanes<T> <= k; j += lanes<T>) store(to + j, load(at + j));
    if (from.dense())
      for (; j < k; j++) to[j] = T(number(at[j]));
    for (; j < k; j++) to[j] = T(number(at[from.offset(j)]));
    for (size_t j = k; j < size_; j++) to[j] = fill;
  }

  template <class F> void each(F f) {
    const T* line = line_;
    if (gathered_)
      walk(line, line, grid_.k, f);
    else
      walk(memory_, row_ + 1 < grid_.stop ? memory_ + grid_.k : memory_, grid_.k, f);
  }
  template <class F> void each_position(F f) const {
    for (size_t at = 0; at < grid_.k; at += lanes<T>) f(at);
  }
  template <class F> void each_class(F f) const {
    for (size_t j = 0; j < grid_.k; j++) f(j, j);
  }
  void clear_beyond(T* numbers) const {  // lanes without a class
    for (size_t j = grid_.k; j < size_; j++) numbers[j] = 0;
  }
  Lanes<T> score(size_t at) {
    if (gathered_) return load(static_cast<const T*>(line_) + at);
    return at + lanes<T> <= grid_.k ? load(memory_ + at)
                                    : load_first(memory_ + at, grid_.k - at, -infinity<T>);
  }
  T pick(size_t, size_t j) { return gathered_ ? line_[j] : number(memory_[j]); }
  size_t position(size_t, size_t j) const { return j; }
  Wide<T> count_over_row(const Lanes<T>& x) const {
    Sum<T> sum;
    sum.add(x);
    return value(joined_lanes(sum));
  }

  // The answer is f(position); then, unless that was for good, single entries may be set; then it
  // is finished.
  template <class F> void update(const Array<S>& out, F f, bool for_good = true) {
    S* to = out.row(row_);
    const size_t k = grid_.k;
    if (!out.dense()) {
      for (size_t at = 0; at < k; at += lanes<T>) {
        T lane[lanes<T>];
        store(lane, f(at));
        for (size_t l = 0; l < least(lanes<T>, k - at); l++)
          to[out.offset(at + l)] = stored<S>(lane[l]);
      }
      return;
    }
    size_t j = 0;
    if (grid_.past_caches && for_good) {
      constexpr size_t line = lanes<T> * sizeof(S);
      const size_t beyond = reinterpret_cast<uintptr_t>(to) % line / sizeof(S);
      j = beyond ? least(lanes<T> - beyond, k) : 0;
      if (j) store_first(to, f(0), j);
      for (; j + lanes<T> <= k; j += lanes<T>) stream(to + j, f(j));
    }
    for (; j + lanes<T> <= k; j += lanes<T>) store(to + j, f(j));
    if (j < k) store_first(to + j, f(j), k - j);
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
  size_t size_, row_ = 0;
  bool gathered_ = false;
  const S* memory_ = nullptr;
  Room<T> kept_, line_, allowed_;
};

// ---- tiles ----

template <class S, bool tall>
class Tile : public Heads<Compute<S>>, public Reducing<Tile<S, tall>, Compute<S>> {
 public:
  using T = Compute<S>;
  static constexpr size_t height = lanes<T>;

  struct ShortSums {
    Sum<T> sum;
    template <class X> void add(const X& x, size_t) { sum.add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t) { sum.add_product(a, b); }
    Sum<T> joined() const { return sum; }
  };
  struct TallSums {
    Sum<T> part[lanes<T>];
    Sum<T>& of(size_t at) { return part[at / height % lanes<T>]; }
    template <class X> void add(const X& x, size_t at) { of(at).add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t at) { of(at).add_product(a, b); }
    Sum<T> joined() { return joined_parts<T>(part); }
  };
  using Sums = std::conditional_t<tall, TallSums, ShortSums>;

  explicit Tile(const Grid& grid)
      : grid_(grid), entry_(room(grid)), second_(room(grid)), allowed_(room(grid)),
        block_(room(grid)) {}
  ~Tile() {
    if (grid_.past_caches) fence();
  }

  // Whole blocks to transpose, and what a store of a whole vector may write beyond the last row.
  static size_t room(const Grid& grid) { return (grid.k + lanes<T>) * height; }
  size_t count() const { return count_; }
  T* kept() { return entry_; }
  T* second() { return second_; }
  T* allowed() { return allowed_; }

  void take(size_t i, size_t count) { row_ = i, count_ = count; }
  void ask(const PerRow& temperature) { Heads<T>::ask(temperature, row_, count_); }

  template <class Prepare> void open(const Scores& scores, bool must_prepare, Prepare prepare) {
    read(Array<S>{grid_, scores.x}, entry_, T(0));
    if (must_prepare) prepare(static_cast<T*>(entry_));
    Lanes<T> m = all(-infinity<T>);
    for (size_t j = 0; j < grid_.k; j++) m = ::max(load(entry_ + j * height), m);
    this->max = m;
    ask(scores.temperature);
    this->temperature = load(this->asked);
    const bool sound = !this->scaled || (all_finite(this->temperature) &&
                                         all_finite(all<T>(1) / this->temperature));
    this->settled = !(sound && all_finite(m));
    if (this->settled) settle_rows();
  }

  // The rows' numbers in another array, class by class; fill stands in lanes without a row.
  template <class A> void read(const Array<A>& from, T* to, T fill) const {
    if constexpr (__is_same(Compute<A>, T)) {
      if (from.columns()) return read_columns(from, to, fill);
      if (from.dense()) return read_rows(from, to);
    }
    const size_t k = grid_.k;
    for (size_t l = 0; l < count_; l++) {
      const A* at = from.row(row_ + l);
      for (size_t j = 0; j < k; j++) to[j * height + l] = T(number(at[from.offset(j)]));
    }
    for (size_t l = count_; l < height; l++)
      for (size_t j = 0; j < k; j++) to[j * height + l] = fill;
  }

  template <class F> void each(F f) {
    for (size_t j = 0; j < grid_.k; j++) f(j * height, load(entry_ + j * height));
  }
  template <class F> void each_position(F f) const {
    for (size_t j = 0; j < grid_.k; j++) f(j * height);
  }
  template <class F> void each_class(F f) const {
    for (size_t j = 0; j < grid_.k; j++)
      for (size_t l = 0; l < height; l++) f(j * height + l, j);
  }
  void clear_beyond(T*) const {}
  Lanes<T> score(size_t at) { return load(entry_ + at); }
  T pick(size_t l, size_t j) { return entry_[j * height + l]; }
  size_t position(size_t l, size_t j) const { return j * height + l; }
  Wide<T> count_over_row(const Lanes<T>& x) const { return widen(x); }

  template <class F> void update(const Array<S>&, F f, bool = true) {
    for (size_t j = 0; j < grid_.k; j++) store(entry_ + j * height, f(j * height));
  }
  void set(const Array<S>&, size_t l, size_t j, T x) { entry_[j * height + l] = x; }
  void set_row(const Array<S>&, size_t l, T x) {
    for (size_t j = 0; j < grid_.k; j++) entry_[j * height + l] = x;
  }
  void finish(const Array<S>& out) {
    if (out.columns())
      write_columns(out);
    else if (out.dense())
      write_rows(out);
    else
      for (size_t l = 0; l < count_; l++) {
        S* to = out.row(row_ + l);
        for (size_t j = 0; j < grid_.k; j++) to[out.offset(j)] = stored<S>(entry_[j * height + l]);
      }
  }

 private:
  static constexpr size_t n = native<T>;

  void settle_rows() {
    T top[height], t[height];
    store(top, this->max);
    store(this->top, this->max);
    store(t, this->temperature);
    for (size_t l = 0; l < height; l++) {
      this->settled_lane[l] = this->needs_settling(top[l], t[l]);
      if (!this->settled_lane[l]) continue;
      this->nan[l] = settle<T>(entry_ + l, grid_.k, height, top[l], t[l]);
      top[l] = 0, t[l] = 1;
    }
    this->max = load(top);
    this->temperature = load(t);
  }

  template <class A> void read_columns(const Array<A>& from, T* to, T fill) const {
    const A* at = from.row(row_);
    for (size_t j = 0; j < grid_.k; j++, at += from.view.step) {
      __builtin_prefetch(at + height, 0, 2);
      store(to + j * height, count_ == height ? load(at) : load_first(at, count_, fill));
    }
  }

  // Rows to columns, n by n. Lanes without a row repeat the last one.
  template <class A> void read_rows(const Array<A>& from, T* to) const {
    const size_t k = grid_.k;
    const bool one_piece = from.contiguous();
    if (one_piece && count_ == height && k <= longest_picked_row) {
      const A* first = from.row(row_);
      prepare_picks();
      for (size_t r = 0; r < height; r += n) {
        Vector<T> v[longest_picked_row];
        for (size_t i = 0; i < k; i++) v[i] = widened(first + r * k + i * n);
        for (size_t j = 0; j < k; j++) {
          const Vector<T> column = picked(v, j, into_columns_);
          __builtin_memcpy(to + j * height + r, &column, sizeof(column));
        }
      }
      return;
    }
    if (one_piece && (grid_.stop - row_ - height) * k >= n && grid_.stop - row_ > height) {
      const A* first = from.row(row_);  // what whole vectors read beyond a row belongs to later rows
      return read_blocks(to, [=](size_t l, size_t c) { return widened(first + l * k + c); });
    }
    const A *row[height], *end[height];  // numbers up to end may be read
    for (size_t l = 0; l < height; l++) row[l] = from.row(row_ + least(l, count_ - 1));
    for (size_t l = 0; l < height; l++) end[l] = (one_piece ? row[count_ - 1] : row[l]) + k;
    read_blocks(to, [&](size_t l, size_t c) {
      const A* at = row[l] + c;
      return at + n <= end[l] ? widened(at) : widened_first(at, k - c);
    });
  }
  template <class F> [[gnu::always_inline]] void read_blocks(T* to, F vector_at) const {
    const size_t k = grid_.k;
    for (size_t c = 0; c < k; c += n)
      for (size_t r = 0; r < height; r += n) {
        Vector<T> m[n];
#pragma GCC unroll 16
        for (size_t i = 0; i < n; i++) m[i] = vector_at(r + i, c);
        transpose<T>(m);
#pragma GCC unroll 16
        for (size_t i = 0; i < n; i++)
          __builtin_memcpy(to + (c + i) * height + r, &m[i], sizeof(m[i]));
      }
  }

  // Very short rows of a whole tile: each vector is picked, number by number, from all of them.
  Vector<T> picked(const Vector<T>* from, size_t which, const Bits<T>* picks) const {
    const size_t k = grid_.k;
    Vector<T> v = from[0];
    for (size_t i = 1; i < k; i++)
      v = __builtin_shuffle(v, from[i], picks[which * (longest_picked_row - 1) + i - 1]);
    return v;
  }
  // Vector i holds the numbers i n .. i n + n of n rows, which is class number % k of row
  // number / k. A pick below n is what stands there, n + m is number m of the next vector.
  void prepare_picks() const {
    if (picks_ready_) return;
    picks_ready_ = true;
    const size_t k = grid_.k;
    for (size_t j = 0; j < k; j++)
      for (size_t i = 1; i < k; i++)
        for (size_t l = 0; l < n; l++) {
          const size_t number = l * k + j, place = j * n + l;  // into columns; and back, into rows
          const size_t pick = j * (longest_picked_row - 1) + i - 1;
          const size_t stays = i == 1 && number < n ? number : l;
          into_columns_[pick][l] = number / n == i ? n + number % n : stays;
          const size_t kept = i == 1 && place % k == 0 ? place / k : l;
          into_rows_[pick][l] = place % k == i ? n + place / k : kept;
        }
  }

  // Columns to rows, packed in the block first: what a whole vector writes beyond a row's end, the
  // next row writes over. So the last columns come first.
  void write_rows(const Array<S>& out) {
    const size_t k = grid_.k;
    if (picks_ready_ && count_ == height) {
      for (size_t r = 0; r < height; r += n) {
        Vector<T> v[longest_picked_row];
        for (size_t j = 0; j < k; j++) v[j] = copied<Vector<T>>(entry_ + j * height + r);
        for (size_t i = 0; i < k; i++) {
          const auto row = narrowed<S>(picked(v, i, into_rows_));
          __builtin_memcpy(block_ + r * k + i * n, &row, sizeof(row));
        }
      }
      return write_block(out);
    }
    for (size_t r = 0; r < height; r += n)
      for (size_t c = (k - 1) / n * n;; c -= n) {
        Vector<T> m[n];
#pragma GCC unroll 16
        for (size_t i = 0; i < n; i++)
          m[i] = copied<Vector<T>>(entry_ + (c + i) * height + r);
        transpose<T>(m);
#pragma GCC unroll 16
        for (size_t i = 0; i < n; i++) {
          const auto v = narrowed<S>(m[i]);
          __builtin_memcpy(block_ + (r + i) * k + c, &v, sizeof(v));
        }
        if (c == 0) break;
      }
    write_block(out);
  }
  void write_block(const Array<S>& out) {
    const size_t k = grid_.k;
    if (!out.contiguous()) {
      for (size_t l = 0; l < count_; l++)
        __builtin_memcpy(out.row(row_ + l), block_ + l * k, k * sizeof(S));
      return;
    }
    S* to = out.row(row_);
    constexpr size_t line = lanes<T> * sizeof(S);
    const bool past = grid_.past_caches && reinterpret_cast<uintptr_t>(to) % line == 0;
    size_t j = 0;
    for (; j + lanes<T> <= count_ * k; j += lanes<T>) {
      const Lanes<T> x = load<S>(block_ + j);
      past ? stream(to + j, x) : store(to + j, x);
    }
    if (j < count_ * k) __builtin_memcpy(to + j, block_ + j, (count_ * k - j) * sizeof(S));
  }

  void write_columns(const Array<S>& out) {
    S* to = out.row(row_);
    const ptrdiff_t step = out.view.step;
    constexpr size_t line = lanes<T> * sizeof(S);
    const bool aligned = (reinterpret_cast<uintptr_t>(to) | uintptr_t(step * sizeof(S))) % line == 0;
    for (size_t j = 0; j < grid_.k; j++, to += step) {
      const Lanes<T> x = load<T>(entry_ + j * height);
      if (count_ < height)
        store_first(to, x, count_);
      else if (aligned && grid_.past_caches)
        stream(to, x);
      else
        store(to, x);
    }
  }

  const Grid& grid_;
  size_t row_ = 0, count_ = 0;
  static constexpr size_t few = tall ? 0 : (longest_short_row + lanes<T>) * height;
  Room<T, few> entry_, second_, allowed_;
  mutable bool picks_ready_ = false;
  mutable Bits<T> into_columns_[longest_picked_row * (longest_picked_row - 1)],
      into_rows_[longest_picked_row * (longest_picked_row - 1)];
  Room<S, few> block_;
};

// ---- all rows ----

const auto keep_nothing = [](size_t, const auto&, const auto&) {};

// Do the rows of any of the arrays lie as columns do?
template <class... V> bool side_by_side(const Grid& grid, const V&... views) {
  return (columns(grid, views) || ...);
}

// Puts fill where the mask leaves a class out.
template <class U, class T>
void mask(U& unit, const Array<const uint8_t>& where, T* numbers, T fill) {
  T* allowed = unit.allowed();
  unit.read(where, allowed, T(0));
  unit.each_position([&](size_t at) {
    store(numbers + at, where_zero(load(allowed + at), all(fill), load(numbers + at)));
  });
}

// For every unit of the grid's rows calls work(first row), where work = make(unit); side_by_side
// says that the rows lie as columns do.
template <class S, bool tall, class Make>
void for_tiles(const Grid& grid, bool side_by_side, Make make) {
  Tile<S, tall> tile(grid);
  auto&& work = make(tile);
  const size_t run = side_by_side ? grid.size[grid.dimensions - 1] : 0;
  for (size_t i = grid.start, count; i < grid.stop; i += count) {
    count = least(tile.height, grid.stop - i);
    if (run) count = least(count, run - i % run);
    tile.take(i, count);
    work(i);
  }
}
template <class S, class Make> void for_units(const Grid& grid, bool side_by_side, Make make) {
  if (grid.k <= longest_short_row) return for_tiles<S, false>(grid, side_by_side, make);
  if (side_by_side) return for_tiles<S, true>(grid, side_by_side, make);
  Row<S> row(grid);
  auto&& work = make(row);
  for (size_t i = grid.start; i < grid.stop; i++) {
    row.take(i, 1);
    work(i);
  }
}

}  // namespace
