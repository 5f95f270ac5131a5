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

// ---- long rows ----

// A row is walked from the start of the line of memory that holds its first number, so that no
// vector lies across two lines: the number of class j has position shift + j. Lanes without a class
// are filled, with -inf where they must not count in a sum of exponentials.

// The numbers from one line's start to the next: a vector.
template <class S> constexpr size_t line_bytes = lanes<Compute<S>> * sizeof(S);
template <class S> inline size_t shift_in_line(const S* at) {
  return reinterpret_cast<uintptr_t>(at) % line_bytes<S> / sizeof(S);
}

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
  [[gnu::always_inline]] void begin(Writing<S>& writing, const Array<S>& out, F f, bool for_good = true) const {
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

// ---- tiles ----

template <class S>
inline void write_lanes(S* to, const Lanes<Compute<S>>& x, size_t count, bool past_caches) {
  if (count < lanes<Compute<S>>)
    store_first(to, x, count);
  else if (past_caches && shift_in_line(to) == 0)
    stream(to, x);
  else
    store(to, x);
}

// Columns are read and written in panels, several tiles (strips) wide: memory is fast along its pages,
// and a class may be pages away from the next. While one panel is worked on, the next is read and the
// one before written, a vector at each step.
template <class S> class Panels {
 public:
  using T = Compute<S>;
  static constexpr size_t height = lanes<T>;

  Panels(const Grid& grid, const View* lines)
      : grid_(grid), lines_(lines), strips_(lines ? strips(grid) : 0), room_(3 * strips_ * size()) {
    Panel* every[] = {&now_, &next_, &last_};
    for (size_t i = 0; i < 3; i++) every[i]->numbers = room_ + i * strips_ * size();
  }

  // The block of the tile whose first row this is: class by class.
  T* open(const Array<S>& x, size_t row) {
    if (!now_.holds(row)) {
      while (reading_.left) read();
      swap(now_, next_);
      if (!now_.holds(row)) {
        place(now_, row);
        read_at_once(x);
      }
      next_.stop = 0;
      if (now_.stop < grid_.stop) place(next_, now_.stop);
      if (is_whole(next_))
        reading_ = from_start(x, next_);
      else
        next_.stop = 0;
    }
    return now_.numbers + (row - now_.start + now_.shift) / height * size();
  }
  // The tile before this row is done; with the last one, so is the panel.
  void close(const Array<S>& out, size_t row) {
    if (row < now_.stop) return;
    finish();
    if (!is_whole(now_)) return write_at_once(out);
    swap(now_, last_);
    now_.stop = 0;
    writing_ = from_start(out, last_);
  }
  [[gnu::always_inline]] void step() {
    if (reading_.left) read();
    if (writing_.left) write();
  }
  void finish() {
    while (writing_.left) write();
  }

 private:
  struct Panel {
    size_t start = 0, stop = 0, shift = 0;  // rows; how far the first stands into a line of memory
    T* numbers = nullptr;
    bool holds(size_t row) const { return start <= row && row < stop; }
  };
  // A vector of an array and its place in a panel, strip by strip and class by class.
  struct Cursor {
    S* at = nullptr;
    T* place = nullptr;
    ptrdiff_t step = 0, ahead = 0;  // from class to class; to what is fetched in advance
    size_t strip = 0, left = 0;
  };

  static void swap(Panel& a, Panel& b) {
    const Panel before = a;
    a = b, b = before;
  }
  size_t size() const { return grid_.k * height; }
  static size_t strips(const Grid& grid) {
    constexpr size_t bytes = 1 << 17, most = 32;  // of three panels, in a core's own cache
    return least(most, bytes / (grid.k * height * sizeof(T)) + 1);
  }
  void place(Panel& panel, size_t row) const {
    const size_t run = grid_.size[grid_.dimensions - 1];
    panel.start = row, panel.shift = shift_in_line(Array<const S>{grid_, *lines_}.row(row));
    panel.stop = row + least(strips_ * height - panel.shift,
                             least(grid_.stop - row, run - row % run));
  }
  bool is_whole(const Panel& panel) const {
    return panel.stop == panel.start + strips_ * height;
  }
  Cursor from_start(const Array<S>& array, const Panel& panel) const {
    constexpr size_t lines_ahead = 32;
    const ptrdiff_t step = array.view.step, ahead = ptrdiff_t(lines_ahead / strips_ + 1) * step;
    return {array.row(panel.start), panel.numbers, step, ahead, 0, strips_ * grid_.k};
  }
  [[gnu::always_inline]] void advance(Cursor& cursor) const {
    cursor.left--, cursor.strip++;
    cursor.at += height, cursor.place += size();
    if (cursor.strip < strips_) return;
    cursor.strip = 0;
    cursor.at += cursor.step - ptrdiff_t(strips_ * height);
    cursor.place += ptrdiff_t(height) - ptrdiff_t(strips_ * size());
  }
  [[gnu::always_inline]] void read() {
    __builtin_prefetch(reading_.at + reading_.ahead);
    store(reading_.place, load(reading_.at));
    advance(reading_);
  }
  [[gnu::always_inline]] void write() {
    const Lanes<T> x = load(static_cast<const T*>(writing_.place));
    if (grid_.past_caches && shift_in_line(writing_.at) == 0)
      stream(writing_.at, x);
    else
      store(writing_.at, x);
    advance(writing_);
  }

  // A panel at the edge, whose strips may be narrower. f(column, place, columns)
  template <class F> void each_strip(F f) const {
    for (size_t i = now_.start, b = 0, count; i < now_.stop; i += count, b++) {
      count = least(b ? height : height - now_.shift, now_.stop - i);
      f(i - now_.start, now_.numbers + b * size(), count);
    }
  }
  void read_at_once(const Array<S>& x) const {
    const S* from = x.row(now_.start);
    for (size_t j = 0; j < grid_.k; j++, from += x.view.step)
      each_strip([&](size_t column, T* place, size_t count) {
        store(place + j * height, count == height ? load(from + column)
                                                  : load_first(from + column, count, T(0)));
      });
  }
  void write_at_once(const Array<S>& out) const {
    S* to = out.row(now_.start);
    for (size_t j = 0; j < grid_.k; j++, to += out.view.step)
      each_strip([&](size_t column, T* place, size_t count) {
        write_lanes(to + column, load(static_cast<const T*>(place) + j * height), count,
                    grid_.past_caches);
      });
  }

  const Grid& grid_;
  const View* lines_;
  size_t strips_;
  Room<T> room_;
  Panel now_, next_, last_;
  Cursor reading_, writing_;
};

template <class S, bool tall>
class Tile : public Heads<Compute<S>>, public Reducing<Tile<S, tall>, Compute<S>> {
 public:
  using T = Compute<S>;
  static constexpr size_t height = lanes<T>;

  struct ShortSums {
    Sum<T> sum;
    template <class X> void add(const X& x, size_t) { sum.add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t) { sum.add_product(a, b); }
  };
  struct TallSums {
    Sum<T> part[lanes<T>];
    Sum<T>& of(size_t at) { return part[at / height % lanes<T>]; }
    template <class X> void add(const X& x, size_t at) { of(at).add(x); }
    void add_product(const Lanes<T>& a, const Lanes<T>& b, size_t at) { of(at).add_product(a, b); }
  };
  using Sums = std::conditional_t<tall, TallSums, ShortSums>;
  static Sum<T> joined(ShortSums sums) { return sums.sum; }
  static Sum<T> joined(TallSums sums) { return joined_parts<T>(sums.part); }

  Tile(const Grid& grid, const View* side_by_side)
      : grid_(grid), own_(room(grid)), second_(room(grid)), allowed_(room(grid)),
        block_(room(grid)), panels_(grid, side_by_side) {}
  ~Tile() {
    panels_.finish();
    if (grid_.past_caches) fence();
  }

  // Whole blocks to transpose, and what a store of a whole vector may write beyond the last row.
  static size_t room(const Grid& grid) { return (grid.k + lanes<T>) * height; }
  size_t count() const { return count_; }
  static size_t shift() { return 0; }
  T* kept() { return entry_; }
  T* second() { return second_; }
  T* allowed() { return allowed_; }

  void take(size_t i, size_t count) { row_ = i, count_ = count, entry_ = own_; }
  void ask(const PerRow& temperature) { Heads<T>::ask(temperature, row_, count_); }

  template <class Prepare> void open(const Scores& scores, bool must_prepare, Prepare prepare) {
    const Array<S> x{grid_, scores.x};
    if (x.columns())
      entry_ = panels_.open(x, row_);
    else
      read(x, entry_, T(0));
    if (must_prepare) prepare(entry_);
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

  template <class F> [[gnu::always_inline]] size_t each(F f) {
    const T* entry = entry_;
    for (size_t j = 0; j < grid_.k; j++) {
      f(j * height, load(entry + j * height));
      panels_.step();
    }
    return grid_.k * height;
  }
  template <class A, class F> void each_of(const Array<A>& from, T fill, F f) {
    read(from, second_, fill);
    each_position([&](size_t at) { f(at, load(static_cast<const T*>(second_) + at)); });
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
    if (out.columns() && entry_ != own_)
      panels_.close(out, row_ + count_);
    else if (out.columns())
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
    for (size_t j = 0; j < grid_.k; j++, to += out.view.step)
      write_lanes(to, load(entry_ + j * height), count_, grid_.past_caches);
  }

  const Grid& grid_;
  size_t row_ = 0, count_ = 0;
  T* entry_ = nullptr;  // the scores, and what takes their place
  static constexpr size_t few = tall ? 0 : (longest_short_row + lanes<T>) * height;
  Room<T, few> own_, second_, allowed_;
  mutable bool picks_ready_ = false;
  mutable Bits<T> into_columns_[longest_picked_row * (longest_picked_row - 1)],
      into_rows_[longest_picked_row * (longest_picked_row - 1)];
  Room<S, few> block_;
  Panels<S> panels_;
};

// ---- all rows ----

// Work to be done meanwhile: none, or an answer to be written. That stays just ahead of the numbers
// that will take its place: were it further, the processor would take it for memory that is about to
// be read, whose address often ends in the same 12 bits.
struct Nothing {
  void step(size_t) const {}
  void finish(size_t) const {}
};
template <class S, class Entry> struct Unwritten {
  Writing<S> writing;
  Entry entry;
  [[gnu::always_inline]] void step(size_t at) const { writing.step(at, entry); }
  [[gnu::always_inline]] void finish(size_t at) const { writing.finish(at, entry); }
};
template <class S, class Entry> Unwritten(Writing<S>, Entry) -> Unwritten<S, Entry>;

// Two passes over each unit: first(meanwhile) reduces its scores to a state, and then(state) gives the
// answer, a function of the position. While a long row is reduced, the answer of the one before is written:
// memory and arithmetic each have something to do.
template <class S, class U, class First, class Then> class Passes {
 public:
  Passes(U& unit, const Array<S>& out, First first, Then then)
      : unit_(unit), out_(out), first_(first), then_(then) {}
  ~Passes() { writing_.finish(0, entry()); }
  Passes(const Passes&) = delete;

  [[gnu::always_inline]] void operator()(size_t) {
    if constexpr (U::height == 1) {
      state_ = first_(Unwritten{writing_, entry()});
      if (!out_.dense()) return unit_.update(out_, entry());
      unit_.begin(writing_, out_, entry());
    } else {
      state_ = first_(Nothing());
      unit_.update(out_, entry());
      unit_.finish(out_);
    }
  }

 private:
  [[gnu::always_inline]] auto entry() const {
    return then_(state_);
  }

  U& unit_;
  const Array<S>& out_;
  First first_;
  Then then_;
  decltype(std::declval<First>()(Nothing())) state_{};
  Writing<S> writing_;
};

const auto keep_nothing = [](size_t, const auto&, const auto&) {};

// The first of the arrays whose rows lie as columns do, or null.
template <class... V> const View* side_by_side(const Grid& grid, const V&... views) {
  const View* found = nullptr;
  ((found = found || !columns(grid, views) ? found : &views), ...);
  return found;
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
// is an array whose rows lie as columns do. Its lines of memory are not parted among tiles.
template <class S, bool tall, class Make>
void for_tiles(const Grid& grid, const View* side_by_side, Make make) {
  Tile<S, tall> tile(grid, side_by_side);
  auto&& work = make(tile);
  const size_t run = side_by_side ? grid.size[grid.dimensions - 1] : 0;
  for (size_t i = grid.start, count; i < grid.stop; i += count) {
    count = least(tile.height, grid.stop - i);
    if (run) {
      const size_t shift = shift_in_line(Array<const S>{grid, *side_by_side}.row(i));
      count = least(least(count, tile.height - shift), run - i % run);
    }
    tile.take(i, count);
    work(i);
  }
}
template <class S, class Make>
void for_units(const Grid& grid, const View* side_by_side, Make make) {
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
