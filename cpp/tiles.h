// Rows worked on side by side: lanes are rows, positions are classes.
#pragma once

#include "heads.h"

namespace {

constexpr size_t longest_short_row = 48;
constexpr size_t longest_picked_row = 5;  // beyond, transposing takes fewer shuffles

template <class S>
[[gnu::always_inline]] inline void write_lanes(S* to, const Lanes<Compute<S>>& x, size_t count,
                                               bool past_caches) {
  if (count < lanes<Compute<S>>)
    store_first(to, x, count);
  else if (past_caches && shift_in_line(to) == 0)
    stream(to, x);
  else
    store(to, x);
}

// Columns are read and written in panels, several tiles (strips) wide: memory is fast along its
// pages, and a class may be pages away from the next. While one panel is worked on, the next is read
// and the one before written, a vector at each step.
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
    write_lanes(writing_.at, load(static_cast<const T*>(writing_.place)), height,
                grid_.past_caches);
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

}  // namespace
