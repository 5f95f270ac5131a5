// Where the numbers of rows stand in memory, and room for numbers beside them.
#pragma once

#include <new>

#include "kernels.h"
#include "lanes.h"

namespace {

using softly::Grid;
using softly::PerRow;
using softly::ptrdiff_t;
using softly::Scores;
using softly::View;

constexpr size_t fewest_columns = 8;  // side by side, for which a tall tile is worth its idle lanes

// The numbers from one line's start to the next: a vector.
template <class S> constexpr size_t line_bytes = lanes<Compute<S>> * sizeof(S);
template <class S> inline size_t shift_in_line(const S* at) {
  return reinterpret_cast<uintptr_t>(at) % line_bytes<S> / sizeof(S);
}

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

}  // namespace
