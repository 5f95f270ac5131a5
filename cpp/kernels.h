// What the compiled core offers: row loops over contiguous memory, once for each number type.
// Which processor level they were built for is the module's business; threads are Python's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softly {

template <class T> struct Kernels {
  void (*softmax)(const T* rows, T* out, size_t n, size_t k);
  void (*log_softmax)(const T* rows, T* out, size_t n, size_t k);
  void (*logsumexp)(const T* rows, T* out, size_t n, size_t k);
  // loss[i] = logsumexp(row) - row[target]; grad = scale[i] * (softmax(row) - onehot(target)).
  // A null scale is all ones, a null grad is not written; grad may be rows. A row of scale 0
  // gives exact zeros for both, whatever it holds. Targets are trusted to lie in [0, k).
  void (*cross_entropy)(const T* rows, const int64_t* target, const T* scale, T* loss, T* grad,
                        size_t n, size_t k);
  void (*sigmoid)(const T* x, T* out, size_t n);
  void (*log_sigmoid)(const T* x, T* out, size_t n);
};

struct Level {
  Kernels<float> f32;
  Kernels<double> f64;
};

}  // namespace softly
