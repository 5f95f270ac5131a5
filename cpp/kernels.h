// What the compiled core offers: row loops over memory, once for each number type. Which processor
// level they were built for is the module's business; threads are Python's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softly {

using std::ptrdiff_t;
using std::size_t;

constexpr size_t most_dimensions = 64;

// Which rows are worked on: those numbered start to stop, counted in C order over `size`.
struct Grid {
  size_t k;  // entries of a row: the classes
  size_t start, stop;
  bool past_caches;  // the answer is too large to stay in a cache
  size_t dimensions;
  size_t size[most_dimensions];
};

// Where the entries of the rows stand in an array; strides in numbers, not bytes.
struct View {
  void* data = nullptr;  // null: there is no such array
  ptrdiff_t step = 1;    // from class to class
  const ptrdiff_t* offsets = nullptr;  // or, where no one step leads, from the first class to each
  ptrdiff_t stride[most_dimensions];
};

// A number, or one for each row, in the compute type.
struct PerRow {
  double value = 1;
  const void* each = nullptr;
};

// The scores of rows, and how they are read.
struct Scores {
  View x;
  View where;  // bytes: 0 where a class does not take part
  PerRow temperature;
};

// Whole numbers of any type.
struct Integers {
  const void* data = nullptr;
  int bytes = 8;
  bool is_signed = true;
};

enum class Type { f16, bf16, f32, f64 };

// What a cross-entropy is made of; Python's `Terms` says what each means.
struct Terms {
  Integers index;
  size_t wanted = 0;  // classes an index names for each row
  const void* share = nullptr;
  View soft;
  Type soft_type = Type::f32;
  bool has_ignored = false;
  int64_t ignored = 0;
  const void* class_weight = nullptr;
  PerRow scale;
  double smoothing = 0, z_loss = 0, cap = 0, focal = 0;
};

struct Functions {
  void (*softmax)(const Grid&, const Scores&, const View& out);
  void (*log_softmax)(const Grid&, const Scores&, const View& out);
  void (*logsumexp)(const Grid&, const Scores&, void* out);
  void (*softmax_inverse)(const Grid&, const Scores&, const View& out);
  void (*softmax_vjp)(const Grid&, const Scores&, const View& g, const View& out);
  void (*log_softmax_vjp)(const Grid&, const Scores&, const View& g, const View& out);
  void (*sigmoid)(const void* x, void* out, size_t n);
  void (*log_sigmoid)(const void* x, void* out, size_t n);
  void (*exponential)(const void* x, void* out, size_t n);  // of numbers not above 0
};

struct Losses {
  // loss has the compute type; grad.data may be null. Targets are trusted to be classes.
  void (*cross_entropy)(const Grid&, const Scores&, const Terms&, void* loss, const View& grad);
  // The first row of soft targets that are negative, not finite, or whose sum is further than
  // tolerance from 1; grid.stop if there is none. Rows of scale 0 are not looked at.
  size_t (*check_soft)(const Grid&, const View& soft, const PerRow& scale, double tolerance);
  // The sum of n numbers of the compute type, always in the same order.
  double (*total)(const void* x, size_t n);
};

// What hard targets are: how many count, and the first that is no class (stop if there is none).
struct Survey {
  size_t counted, first_bad;
};
typedef Survey (*SurveyTargets)(const Integers&, size_t start, size_t stop, uint64_t classes,
                                bool has_ignored, int64_t ignored);

// Scores of rows that are linear in their features: x w + b.
struct Layer {
  size_t features, classes;
  const void* x = nullptr;  // by rows
  ptrdiff_t stride = 0;     // from row to row
  // Or only those that are not 0: x[row[i]] to x[row[i + 1]] are row i's, of these features.
  const void *feature = nullptr, *row = nullptr;
  int index_bytes = 4, number_bytes = 4;
  bool is_packed = false;  // weights have their classes padded to whole lanes of doubles
};

// What rows of a layer are to be: a class each, or a share of every class.
struct Targets {
  const int64_t* index = nullptr;
  const void* soft = nullptr;    // by rows, contiguous
  const void* weight = nullptr;  // of each row
};

// What a pass leaves behind: one of the two. A total is added to what stands there: class by class, or
// for sparse rows feature by feature with the classes padded to lanes of doubles. Slopes are what
// each row's scores add to it, padded likewise.
struct Sums {
  double* total = nullptr;
  void* slopes = nullptr;
};

// Passes over rows start to stop of a layer, in float or double as the weights are. Weights and
// directions are feature by feature, the intercepts last.
struct Linear {
  // The sum of weighted losses, its gradient, and each row's probabilities unless they are null.
  double (*loss)(const Layer&, const void* weights, const Targets&, size_t start, size_t stop,
                 const Sums& gradient, void* probabilities);
  // The Hessian times a direction, at probabilities, or else at weights.
  void (*curvature)(const Layer&, const void* weights, const void* direction,
                    const void* probabilities, const void* weight, size_t start, size_t stop,
                    const Sums& product);
  // Adds scale times what slopes sum up to for features start to stop, whose columns are given as
  // the rows of a layer, and for one more: the intercepts.
  void (*gather)(const Layer& columns, size_t count, const void* slopes, size_t start, size_t stop,
                 double scale, void* total, bool to_doubles);
};

// Quadratics with an L1 penalty, block by block.
struct Descent {
  // By the type of sparse rows: the Gram matrices of blocks of features, each row weighted, in zeros.
  // Feature d is place[d] % size in block place[d] / size, and in none where that is below 0; the
  // intercept is a feature of 1.
  void (*grams[2])(const Layer&, size_t n, const int64_t* place, int64_t intercept,
                   const double* weight, size_t count, size_t size, double* grams);
  // Coordinate descent from y, where the quadratic has a slope, no further than low and high; until
  // a sweep's largest gain is the part `swept` of the first's.
  void (*descend)(const double* matrix, size_t n, const double* l1, const double* low,
                  const double* high, size_t most_sweeps, double swept, double* y, double* slope);
};

// For one processor level; all by type.
struct Level {
  const Functions* functions;
  const Losses* losses;
  SurveyTargets survey;
  const Linear* linear;
  const Descent* descent;
};

}  // namespace softly

#define SOFTLY_JOIN_(a, b) a##b
#define SOFTLY_JOIN(a, b) SOFTLY_JOIN_(a, b)
