// Quadratics with an L1 penalty: the blocks of their matrices, from sparse rows, and coordinate
// descent in a block. Compiled once for each processor level.

#include <algorithm>
#include <new>
#include <stdexcept>

#include "kernels.h"

// No templates of the standard library with code of their own: the linker would keep the one of any
// level for all.
namespace {

using softly::Layer;

struct Entry {
  size_t at;
  double x;
};

// What of a row falls in each block.
class Caught {
 public:
  Caught(size_t blocks, size_t size)
      : size_(size), entries_(static_cast<Entry*>(operator new(blocks * size * sizeof(Entry)))),
        counts_(static_cast<size_t*>(operator new(blocks * sizeof(size_t)))), blocks_(blocks) {}
  ~Caught() {
    operator delete(entries_);
    operator delete(counts_);
  }
  Caught(const Caught&) = delete;
  Caught& operator=(const Caught&) = delete;
  void clear() { std::fill_n(counts_, blocks_, size_t(0)); }
  void add(int64_t place, double x) {
    if (place < 0) return;
    const size_t block = size_t(place) / size_, at = size_t(place) % size_;
    if (counts_[block] == size_) throw std::invalid_argument("a row names a feature twice");
    entries_[block * size_ + counts_[block]++] = {at, x};
  }
  const Entry* begin(size_t block) const { return entries_ + block * size_; }
  const Entry* end(size_t block) const { return begin(block) + counts_[block]; }

 private:
  size_t size_;
  Entry* entries_;
  size_t *counts_, blocks_;
};

// Each pair stood on one side of the diagonal or the other.
void complete(double* gram, size_t size) {
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < i; j++)
      gram[i * size + j] = gram[j * size + i] = gram[i * size + j] + gram[j * size + i];
}

template <class X, class I>
void grams_of(const Layer& rows, size_t n, const int64_t* place, int64_t intercept,
              const double* weight, size_t count, size_t size, double* grams) {
  const X* x = static_cast<const X*>(rows.x);
  const I *feature = static_cast<const I*>(rows.feature), *row = static_cast<const I*>(rows.row);
  Caught caught(count, size);
  for (size_t i = 0; i < n; i++) {
    if (weight[i] == 0) continue;
    caught.clear();
    for (size_t j = size_t(row[i]); j < size_t(row[i + 1]); j++) caught.add(place[feature[j]], x[j]);
    caught.add(intercept, 1);
    for (size_t block = 0; block < count; block++) {
      double* gram = grams + block * size * size;
      const Entry *begin = caught.begin(block), *end = caught.end(block);
      for (const Entry* a = begin; a < end; a++) {
        double* line = gram + a->at * size;
        const double weighted = weight[i] * a->x;
        for (const Entry* b = a; b < end; b++) line[b->at] += weighted * b->x;
      }
    }
  }
  for (size_t block = 0; block < count; block++) complete(grams + block * size * size, size);
}

template <class X>
void grams(const Layer& rows, size_t n, const int64_t* place, int64_t intercept,
           const double* weight, size_t count, size_t size, double* to) {
  if (rows.index_bytes == 4)
    grams_of<X, int32_t>(rows, n, place, intercept, weight, count, size, to);
  else
    grams_of<X, int64_t>(rows, n, place, intercept, weight, count, size, to);
}

// Each coordinate in turn goes to its own minimum; y is where, slope what the quadratic's is there.
void descend(const double* matrix, size_t n, const double* l1, const double* low,
             const double* high, size_t most_sweeps, double swept, double* y,
             double* __restrict slope) {
  double first = 0;
  for (size_t sweep = 0; sweep < most_sweeps; sweep++) {
    double largest = 0;
    for (size_t j = 0; j < n; j++) {
      const double* __restrict row = matrix + j * n;
      const double curvature = row[j], bound = l1[j] / curvature;
      const double free = y[j] - slope[j] / curvature;
      const double best = free - std::min(std::max(free, -bound), bound);
      const double to = std::min(std::max(best, low[j]), high[j]), step = to - y[j];
      if (step == 0) continue;
      y[j] = to;
      for (size_t i = 0; i < n; i++) slope[i] += step * row[i];
      largest = std::max(largest, step * step * curvature);
    }
    if (sweep == 0) first = largest;
    if (largest <= swept * first) break;
  }
}

}  // namespace

namespace softly {
extern const Descent SOFTLY_JOIN(descent_, SOFTLY_LEVEL);
const Descent SOFTLY_JOIN(descent_, SOFTLY_LEVEL) = {{grams<float>, grams<double>}, descend};
}  // namespace softly
