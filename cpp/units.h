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

#include "rows.h"
#include "tiles.h"

namespace {

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

// Two passes over each unit: first(meanwhile) reduces its scores to a state, and then(state) gives
// the answer, a function of the position. While a long row is reduced, the answer of the one before
// is written: memory and arithmetic each have something to do.
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
  [[gnu::always_inline]] auto entry() const { return then_(state_); }

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
