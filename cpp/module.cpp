// The Python face of the kernels: where arrays' rows lie in memory, the GIL, which level.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "kernels.h"

namespace nb = nanobind;

namespace softly {

// ---- levels ----

#define SOFTLY_LEVEL_OF(name)                    \
  extern const Functions functions_##name[4];    \
  extern const Losses losses_##name[4];          \
  extern const SurveyTargets survey_##name;      \
  extern const Linear linear_##name[2];          \
  extern const Descent descent_##name;           \
  static Level level_##name() {                  \
    return {functions_##name, losses_##name, survey_##name, linear_##name, &descent_##name}; \
  }

#if defined(SOFTLY_HAS_BASE)
SOFTLY_LEVEL_OF(base)
#else
SOFTLY_LEVEL_OF(v2)
SOFTLY_LEVEL_OF(v3)
SOFTLY_LEVEL_OF(v4)
#endif

struct Named {
  const char* name;
  Level level;
  bool supported;
};

// The levels this module holds, best first.
static const std::vector<Named>& levels() {
  static const std::vector<Named> all = [] {
    std::vector<Named> found;
#if defined(SOFTLY_HAS_BASE)
    found.push_back({"base", level_base(), true});
#else
    __builtin_cpu_init();
    found.push_back({"v4", level_v4(), bool(__builtin_cpu_supports("x86-64-v4"))});
    found.push_back({"v3", level_v3(), bool(__builtin_cpu_supports("x86-64-v3"))});
    found.push_back({"v2", level_v2(), bool(__builtin_cpu_supports("x86-64-v2"))});
#endif
    return found;
  }();
  return all;
}

static Level in_use;

// Picks a level by name, or the best this processor has; returns the name of the one picked.
static std::string use(const std::string& name) {
  std::string choices;
  for (const Named& candidate : levels()) {
    if (!candidate.supported) continue;
    if (name.empty() || name == candidate.name) {
      in_use = candidate.level;
      return candidate.name;
    }
    choices += std::string(choices.empty() ? "" : ", ") + candidate.name;
  }
  if (choices.empty()) throw nb::import_error("the processor has none of the compiled levels");
  throw std::invalid_argument("SOFTLY_CPU is '" + name + "', but this processor has " + choices);
}

// ---- arrays ----

static void require(bool held, const char* what) {
  if (!held) throw std::invalid_argument(what);
}

// A NumPy array; Python has seen to its alignment and the order of its bytes.
class Held {
 public:
  Held(nb::handle array, bool writable) {
    if (array.is_none()) return;
    require(PyArray_Check(array.ptr()), "NumPy arrays are needed");
    array_ = reinterpret_cast<PyArrayObject*>(array.ptr());
    require(!writable || PyArray_ISWRITEABLE(array_), "an array that may be written is needed");
  }

  explicit operator bool() const { return array_; }
  void* data() const { return PyArray_DATA(array_); }
  int dimensions() const { return PyArray_NDIM(array_); }
  size_t size(int d) const { return size_t(PyArray_DIM(array_, d)); }
  size_t count() const { return size_t(PyArray_SIZE(array_)); }
  size_t bytes() const { return count() * itemsize(); }
  size_t itemsize() const { return size_t(PyArray_ITEMSIZE(array_)); }
  ptrdiff_t stride(int d) const { return PyArray_STRIDE(array_, d) / ptrdiff_t(itemsize()); }
  char format() const { return PyArray_DESCR(array_)->type; }
  // float16, float32, float64; 16 bits without a sign are those of a bfloat16.
  Type type() const {
    switch (format()) {
      case 'e': return Type::f16;
      case 'H': return Type::bf16;
      case 'f': return Type::f32;
      case 'd': return Type::f64;
    }
    throw std::invalid_argument("an array of floats is needed");
  }
  bool wide() const { return type() == Type::f64; }
  const void* numbers(bool wide, size_t at_least) const {
    if (!array_) return nullptr;
    require(format() == (wide ? 'd' : 'f') && count() >= at_least,
            "numbers beside the rows need the compute type, and one a row or class");
    return data();
  }
  // All of a C-contiguous array, null if there is none.
  void* contiguous(char type, size_t size) const {
    if (!array_) return nullptr;
    require(format() == type && count() == size && PyArray_IS_C_CONTIGUOUS(array_),
            "a contiguous array of another type or size is needed");
    return data();
  }
  Integers integers() const {
    const char f = format();
    require(std::string("bBhHiIlLqQ").find(f) != std::string::npos, "integers are needed");
    return {data(), int(itemsize()), f >= 'a'};
  }

 private:
  PyArrayObject* array_ = nullptr;
};

// How the rows of several arrays of one shape lie: dimensions that all of them walk in one stride
// are made one.
class Layout {
 public:
  Grid grid;

  // Bit d of axes says that dimension d is one of the classes.
  Layout(const Held& shape, nb::tuple axes) : Layout(shape, bits_of(shape, axes)) {}
  Layout(const Held& shape, uint64_t axes) : shape_(shape) {
    require(shape.dimensions() <= int(most_dimensions), "too many dimensions");
    grid.k = 1;
    for (int d = 0; d < shape.dimensions(); d++) {
      if (axes >> d & 1)
        grid.k *= shape.size(d), classes_[class_count_++] = d;
      else
        rows_ *= shape.size(d), rows_dimension_[row_count_++] = d;
    }
  }

  size_t rows() const { return rows_; }

  void add(const Held& array, View& view) {
    if (!array) return;
    require(array.dimensions() == shape_.dimensions(), "all arrays need one shape");
    for (int d = 0; d < array.dimensions(); d++)
      require(array.size(d) == shape_.size(d), "all arrays need one shape");
    view.data = array.data();
    arrays_[array_count_] = &array;
    views_[array_count_++] = &view;
  }

  void close(size_t start, ptrdiff_t stop, bool past_caches) {
    grid.start = start;
    grid.stop = stop < 0 ? rows_ : size_t(stop);
    require(grid.start <= grid.stop && grid.stop <= rows_, "the range of rows is out of range");
    grid.past_caches = past_caches;
    close_rows();
    close_classes();
  }

 private:
  static constexpr size_t most_arrays = 4;

  static uint64_t bits_of(const Held& shape, nb::tuple axes) {
    uint64_t bits = 0;
    for (nb::handle axis : axes) {
      const int d = nb::cast<int>(axis);
      require(d >= 0 && d < shape.dimensions(), "an axis is out of range");
      bits |= uint64_t(1) << d;
    }
    return bits;
  }
  // Merged dimensions, from the last: each is named by its innermost.
  bool merges(int outer, int inner, size_t inner_size) const {
    for (size_t a = 0; a < array_count_; a++)
      if (arrays_[a]->stride(outer) != arrays_[a]->stride(inner) * ptrdiff_t(inner_size))
        return false;
    return true;
  }
  size_t merge(const int* dimension, int count, int* inner, size_t* size) const {
    size_t found = 0;
    for (int i = count; i-- > 0;) {
      const int d = dimension[i];
      if (shape_.size(d) == 1) continue;
      if (found && merges(d, inner[found - 1], size[found - 1])) {
        size[found - 1] *= shape_.size(d);
      } else {
        inner[found] = d;
        size[found++] = shape_.size(d);
      }
    }
    return found;
  }
  void close_rows() {
    int inner[most_dimensions];
    size_t size[most_dimensions];
    const size_t found = merge(rows_dimension_, row_count_, inner, size);
    grid.dimensions = std::max<size_t>(found, 1);
    grid.size[0] = 1;
    for (size_t a = 0; a < array_count_; a++) views_[a]->stride[0] = ptrdiff_t(grid.k);
    for (size_t f = 0; f < found; f++) {
      const size_t d = found - 1 - f;
      grid.size[d] = size[f];
      for (size_t a = 0; a < array_count_; a++) views_[a]->stride[d] = arrays_[a]->stride(inner[f]);
    }
  }
  void close_classes() {
    int inner[most_dimensions];
    size_t size[most_dimensions];
    const size_t found = merge(classes_, class_count_, inner, size);
    for (size_t a = 0; a < array_count_; a++)
      views_[a]->step = found ? arrays_[a]->stride(inner[0]) : 1;
    if (found < 2) return;
    for (size_t a = 0; a < array_count_; a++) {
      std::vector<ptrdiff_t>& offsets = offsets_[a];
      offsets.resize(grid.k);
      for (size_t j = 0; j < grid.k; j++) {
        ptrdiff_t at = 0;
        for (size_t f = 0, left = j; f < found; left /= size[f++])
          at += ptrdiff_t(left % size[f]) * arrays_[a]->stride(inner[f]);
        offsets[j] = at;
      }
      views_[a]->offsets = offsets.data();
    }
  }

  const Held& shape_;
  int classes_[most_dimensions], rows_dimension_[most_dimensions];
  int class_count_ = 0, row_count_ = 0;
  size_t rows_ = 1, array_count_ = 0;
  const Held* arrays_[most_arrays];
  View* views_[most_arrays];
  std::vector<ptrdiff_t> offsets_[most_arrays];
};

// A number, or an array of one for each row.
class HeldPerRow {
 public:
  HeldPerRow(nb::handle x, bool wide, size_t rows) {
    if (PyFloat_Check(x.ptr())) {
      value_.value = PyFloat_AS_DOUBLE(x.ptr());
    } else {
      array_.emplace(x, false);
      value_.each = array_->numbers(wide, rows);
    }
  }
  const PerRow& get() const { return value_; }

 private:
  std::optional<Held> array_;
  PerRow value_;
};

// Without the GIL, where the work is worth the switch.
template <class F> void released(size_t bytes, F f) {
  std::optional<nb::gil_scoped_release> release;
  if (bytes > 1 << 14) release.emplace();
  f();
}

// An answer larger than this will not wait in a cache for its reader (measured: docs/notes).
constexpr size_t cache_bytes = 1 << 26;

static bool past_caches(const Held& x, const Held& out) {
  return out && out.bytes() > cache_bytes && x.data() != out.data();
}

// ---- functions ----

using Along = void (*)(const Grid&, const Scores&, const View&);
using Product = void (*)(const Grid&, const Scores&, const View&, const View&);

static void along(Along Functions::*kernel, nb::handle x, nb::handle out, nb::tuple axes,
                  nb::handle temperature, nb::handle where, size_t start, ptrdiff_t stop) {
  const Held from(x, false), to(out, true), mask(where, false);
  const Type type = from.type();
  require(to.type() == type, "out needs the type of x");
  Layout layout(from, axes);
  Scores scores;
  View answer;
  layout.add(from, scores.x);
  layout.add(to, answer);
  layout.add(mask, scores.where);
  layout.close(start, stop, past_caches(from, to));
  const HeldPerRow t(temperature, from.wide(), layout.rows());
  scores.temperature = t.get();
  released(from.bytes(), [&] {
    (in_use.functions[int(type)].*kernel)(layout.grid, scores, answer);
  });
}

// The whole call for small plain arrays of float32 or float64, whose cost is that of asking: None
// where they are anything else.
constexpr size_t little_bytes = 1 << 18;

static PyArrayObject* as_small(nb::handle x) {
  if (!PyArray_CheckExact(x.ptr())) return nullptr;
  PyArrayObject* array = reinterpret_cast<PyArrayObject*>(x.ptr());
  const int type = PyArray_TYPE(array);
  const bool small = (type == NPY_DOUBLE || type == NPY_FLOAT) && PyArray_ISBEHAVED_RO(array) &&
                     PyArray_NDIM(array) < int(most_dimensions) &&
                     size_t(PyArray_NBYTES(array)) < little_bytes && PyArray_SIZE(array) > 0;
  return small ? array : nullptr;
}

// May an array in one piece take the answer as it is: the input itself, or nowhere near it?
static bool takes(PyArrayObject* out, PyArrayObject* x) {
  const size_t bytes = size_t(PyArray_NBYTES(x));
  const auto at = reinterpret_cast<uintptr_t>(PyArray_DATA(x)),
             to = reinterpret_cast<uintptr_t>(PyArray_DATA(out));
  return PyArray_TYPE(out) == PyArray_TYPE(x) && PyArray_SAMESHAPE(out, x) &&
         PyArray_ISWRITEABLE(out) && PyArray_IS_C_CONTIGUOUS(out) &&
         PyArray_IS_C_CONTIGUOUS(x) && (at == to || at + bytes <= to || to + bytes <= at);
}

static nb::object quick(Along Functions::*kernel, nb::handle x, nb::handle axis, nb::handle out) {
  PyArrayObject* array = as_small(x);
  if (!array) return nb::none();
  const int dimensions = PyArray_NDIM(array);
  uint64_t axes = (uint64_t(1) << dimensions) - 1;  // None: all
  if (!axis.is_none()) {
    if (!PyLong_CheckExact(axis.ptr())) return nb::none();
    int overflow;
    long d = PyLong_AsLongAndOverflow(axis.ptr(), &overflow);
    if (overflow || d < -dimensions || d >= dimensions) return nb::none();
    axes = uint64_t(1) << (d < 0 ? d + dimensions : d);
  }
  nb::object answer;
  if (out.is_none()) {
    answer = nb::steal(PyArray_NewLikeArray(array, NPY_KEEPORDER, nullptr, 0));
    if (!answer) nb::raise_python_error();
  } else {
    PyArrayObject* given = as_small(out);
    if (!given || !takes(given, array)) return nb::none();
    answer = nb::borrow(out);
  }
  const Held from(x, false), to(answer, true);
  Layout layout(from, axes);
  Scores scores;
  View view;
  layout.add(from, scores.x);
  layout.add(to, view);
  layout.close(0, -1, false);
  released(from.bytes(), [&] {
    (in_use.functions[int(from.type())].*kernel)(layout.grid, scores, view);
  });
  return answer;
}

static void logsumexp(nb::handle x, nb::handle out, nb::tuple axes, nb::handle temperature,
                      nb::handle where, size_t start, ptrdiff_t stop) {
  const Held from(x, false), to(out, true), mask(where, false);
  const Type type = from.type();
  Layout layout(from, axes);
  require(to.type() == type && to.count() == layout.rows(), "out needs one number a row");
  Scores scores;
  layout.add(from, scores.x);
  layout.add(mask, scores.where);
  layout.close(start, stop, false);
  const HeldPerRow t(temperature, from.wide(), layout.rows());
  scores.temperature = t.get();
  released(from.bytes(), [&] {
    in_use.functions[int(type)].logsumexp(layout.grid, scores, to.data());
  });
}

static void product(Product Functions::*kernel, nb::handle x, nb::handle g, nb::handle out,
                    nb::tuple axes, nb::handle temperature, nb::handle where, size_t start,
                    ptrdiff_t stop) {
  const Held from(x, false), upstream(g, false), to(out, true), mask(where, false);
  const Type type = from.type();
  require(to.type() == type && upstream.type() == type, "all arrays need one type");
  Layout layout(from, axes);
  Scores scores;
  View gradient, answer;
  layout.add(from, scores.x);
  layout.add(upstream, gradient);
  layout.add(to, answer);
  layout.add(mask, scores.where);
  layout.close(start, stop, past_caches(from, to) && upstream.data() != to.data());
  const HeldPerRow t(temperature, from.wide(), layout.rows());
  scores.temperature = t.get();
  released(from.bytes(), [&] {
    (in_use.functions[int(type)].*kernel)(layout.grid, scores, gradient, answer);
  });
}

static void elementwise(void (*Functions::*kernel)(const void*, void*, size_t), nb::handle x,
                        nb::handle out, size_t start, ptrdiff_t stop) {
  const Held from(x, false), to(out, true);
  const Type type = from.type();
  const size_t end = stop < 0 ? from.count() : size_t(stop);
  require(to.type() == type && to.count() == from.count() && start <= end && end <= from.count(),
          "out needs the type and size of x");
  const size_t bytes = type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2;
  const char* read = static_cast<const char*>(from.data()) + start * bytes;
  char* write = static_cast<char*>(to.data()) + start * bytes;
  released((end - start) * bytes, [&] {
    (in_use.functions[int(type)].*kernel)(read, write, end - start);
  });
}

// ---- losses ----

static void cross_entropy(nb::handle logits, nb::tuple axes, nb::handle loss, nb::handle grad,
                          nb::handle index, nb::handle share, nb::handle soft,
                          nb::handle ignore_index, nb::handle class_weight, nb::handle scale,
                          double smoothing, double z_loss, double cap, double focal,
                          nb::handle temperature, nb::handle where, size_t start, ptrdiff_t stop) {
  const Held from(logits, false), value(loss, true), to(grad, true), classes(index, false),
      shares(share, false), dense(soft, false), weights(class_weight, false), mask(where, false);
  const Type type = from.type();
  const bool wide = from.wide();
  require(!to || to.type() == type, "grad needs the type of the logits");
  Layout layout(from, axes);
  const size_t n = layout.rows();
  Scores scores;
  Terms terms;
  View answer;
  layout.add(from, scores.x);
  layout.add(to, answer);
  layout.add(mask, scores.where);
  layout.add(dense, terms.soft);
  layout.close(start, stop, past_caches(from, to));
  value.numbers(wide, n);
  if (classes) {
    require(n == 0 || classes.count() % n == 0, "index needs as many classes for each row");
    terms.index = classes.integers();
    terms.wanted = n ? classes.count() / n : 0;
    terms.share = shares.numbers(wide, classes.count());
  }
  if (dense) terms.soft_type = dense.type();
  terms.class_weight = weights.numbers(wide, layout.grid.k);
  terms.has_ignored = !ignore_index.is_none();
  if (terms.has_ignored) terms.ignored = nb::cast<int64_t>(ignore_index);
  terms.smoothing = smoothing, terms.z_loss = z_loss, terms.cap = cap, terms.focal = focal;
  const HeldPerRow t(temperature, wide, n), s(scale, wide, n);
  scores.temperature = t.get();
  terms.scale = s.get();
  released(from.bytes(), [&] {
    in_use.losses[int(type)].cross_entropy(layout.grid, scores, terms, value.data(), answer);
  });
}

static size_t check_soft(nb::handle soft, nb::tuple axes, nb::handle scale, double tolerance,
                         size_t start, ptrdiff_t stop) {
  const Held from(soft, false);
  Layout layout(from, axes);
  View view;
  layout.add(from, view);
  layout.close(start, stop, false);
  const HeldPerRow s(scale, from.wide(), layout.rows());
  size_t bad = 0;
  released(from.bytes(), [&] {
    bad = in_use.losses[int(from.type())].check_soft(layout.grid, view, s.get(), tolerance);
  });
  return bad;
}

static double total(nb::handle x) {
  const Held from(x, false);
  double sum = 0;
  released(from.bytes(), [&] {
    sum = in_use.losses[int(from.type())].total(from.data(), from.count());
  });
  return sum;
}

static nb::tuple survey(nb::handle index, uint64_t classes, nb::handle ignore_index, size_t start,
                        ptrdiff_t stop) {
  const Held from(index, false);
  const Integers targets = from.integers();
  const size_t end = stop < 0 ? from.count() : size_t(stop);
  require(start <= end && end <= from.count(), "the range of rows is out of range");
  const bool has_ignored = !ignore_index.is_none();
  const int64_t ignored = has_ignored ? nb::cast<int64_t>(ignore_index) : 0;
  Survey found{};
  released(from.bytes(), [&] {
    found = in_use.survey(targets, start, end, classes, has_ignored, ignored);
  });
  return nb::make_tuple(found.counted, found.first_bad);
}

// ---- linear layers ----

static size_t padded(size_t classes) { return (classes + 7) / 8 * 8; }

// A CSR matrix, whose indices are trusted; how many rows it has.
static size_t hold_rows(nb::handle x, Layer& layer) {
  require(PyTuple_Check(x.ptr()) && PyTuple_GET_SIZE(x.ptr()) == 3,
          "a CSR matrix is data, indices and indptr");
  const Held data(PyTuple_GET_ITEM(x.ptr(), 0), false), indices(PyTuple_GET_ITEM(x.ptr(), 1), false),
      indptr(PyTuple_GET_ITEM(x.ptr(), 2), false);
  require(indices.integers().bytes == indptr.integers().bytes && indptr.itemsize() >= 4,
          "indices and indptr need one type");
  require(indptr.count() > 0, "indptr needs a number more than there are rows");
  layer.x = data.data();
  layer.number_bytes = data.wide() ? 8 : 4;
  layer.feature = indices.data();
  layer.row = indptr.data();
  layer.index_bytes = int(indptr.itemsize());
  return indptr.count() - 1;
}

// Features by rows: an array, or the three arrays of a CSR matrix; and what is (D + 1, K) beside it,
// or for sparse rows (D + 1, K padded).
class HeldLayer {
 public:
  HeldLayer(nb::handle x, const Held& weights, size_t classes = 0) : wide_(weights.wide()) {
    require(weights.dimensions() == 2 && weights.size(0) > 0, "weights need two axes");
    layer.features = weights.size(0) - 1;
    layer.classes = classes ? classes : weights.size(1);
    layer.is_packed = classes > 0;
    if (PyTuple_Check(x.ptr()))
      hold_sparse(x);
    else
      hold_dense(Held(x, false));
  }
  const void* numbers(const Held& array, size_t count) const {
    return array.contiguous(wide_ ? 'd' : 'f', count);
  }
  const void* of_layer(const Held& array) const {
    const size_t across = layer.is_packed ? padded(layer.classes) : layer.classes;
    return numbers(array, (layer.features + 1) * across);
  }
  // A total, or slopes where the weights are packed.
  Sums sums(const Held& array) const {
    const size_t across = layer.feature ? padded(layer.classes) : layer.classes;
    if (layer.is_packed)
      return {.slopes = const_cast<void*>(numbers(array, rows * padded(layer.classes)))};
    return {.total = static_cast<double*>(array.contiguous('d', (layer.features + 1) * across))};
  }
  const Linear& kernels() const { return in_use.linear[wide_]; }

  Layer layer;
  size_t rows;

 private:
  void hold_dense(const Held& x) {
    require(x.dimensions() == 2 && x.size(1) == layer.features,
            "features need two axes, and weights a row for each feature and one");
    require(x.size(1) < 2 || x.stride(1) == 1, "the features of a row need to lie side by side");
    require(!layer.is_packed, "the weights beside dense features are not padded");
    rows = x.size(0);
    layer.x = x.data();
    layer.number_bytes = x.wide() ? 8 : 4;
    layer.stride = x.stride(0);
  }
  void hold_sparse(nb::handle x) {
    rows = hold_rows(x, layer);
    require(wide_ || layer.number_bytes == 4, "float64 features need float64 weights");
  }

  bool wide_;
};

// Of K classes whose weights are packed, or of as many as weights have where K is 0.
static double linear_loss(nb::handle x, nb::handle weights, nb::handle target, nb::handle weight,
                          nb::handle gradient, nb::handle probabilities, size_t start,
                          size_t stop, size_t classes) {
  const Held w(weights, false), y(target, false), s(weight, false), g(gradient, true),
      p(probabilities, true);
  const HeldLayer held(x, w, classes);
  const size_t k = held.layer.classes;
  require(start <= stop && stop <= held.rows, "the range of rows is out of range");
  Targets targets;
  if (y.dimensions() == 1)
    targets.index = static_cast<const int64_t*>(y.contiguous('l', held.rows));
  else
    targets.soft = held.numbers(y, held.rows * k);
  targets.weight = held.numbers(s, held.rows);
  const void* numbers = held.of_layer(w);
  const Sums sums = held.sums(g);
  void* kept = const_cast<void*>(held.numbers(p, held.rows * k));
  nb::gil_scoped_release release;
  return held.kernels().loss(held.layer, numbers, targets, start, stop, sums, kept);
}

static void linear_curvature(nb::handle x, nb::handle weights, nb::handle direction,
                             nb::handle probabilities, nb::handle weight, nb::handle product,
                             size_t start, size_t stop, size_t classes) {
  const Held w(weights, false), v(direction, false), p(probabilities, false), s(weight, false),
      g(product, true);
  const HeldLayer held(x, v, classes);
  require(start <= stop && stop <= held.rows, "the range of rows is out of range");
  require(w || p, "weights or probabilities are needed");
  const void *at = held.of_layer(w), *along = held.of_layer(v);
  const void* kept = held.numbers(p, held.rows * held.layer.classes);
  const void* scale = held.numbers(s, held.rows);
  const Sums sums = held.sums(g);
  nb::gil_scoped_release release;
  held.kernels().curvature(held.layer, at, along, kept, scale, start, stop, sums);
}

static void linear_gather(nb::handle columns, nb::handle slopes, nb::handle total, size_t start,
                          size_t stop, double scale) {
  const Held r(slopes, false), g(total, true);
  Layer layer;
  const size_t count = hold_rows(columns, layer);
  require(r.dimensions() == 2 && g.dimensions() == 2, "slopes and totals need two axes");
  layer.features = r.size(0);
  layer.classes = g.size(1);
  require(start <= stop && stop <= count + 1, "the range of features is out of range");
  require(r.wide() || layer.number_bytes == 4, "float64 features need float64 slopes");
  const void* from = r.contiguous(r.wide() ? 'd' : 'f', layer.features * padded(layer.classes));
  void* to = g.contiguous(g.wide() ? 'd' : 'f', (count + 1) * layer.classes);
  nb::gil_scoped_release release;
  in_use.linear[r.wide()].gather(layer, count, from, start, stop, scale, to, g.wide());
}

// ---- quadratics with an L1 penalty ----

static void block_grams(nb::handle x, nb::handle place, int64_t intercept, nb::handle weight,
                        nb::handle grams) {
  const Held at(place, false), w(weight, false), g(grams, true);
  Layer layer;
  const size_t n = hold_rows(x, layer);
  require(g.dimensions() == 3 && g.size(1) == g.size(2), "matrices are square");
  const int64_t* places = static_cast<const int64_t*>(at.contiguous('l', at.count()));
  const double* weights = static_cast<const double*>(w.contiguous('d', n));
  double* to = static_cast<double*>(g.contiguous('d', g.count()));
  const size_t count = g.size(0), size = g.size(1);
  require(intercept < int64_t(count * size), "the intercept's place is in no block");
  for (size_t d = 0; d < at.count(); d++)
    require(places[d] < int64_t(count * size), "a feature's place is in no block");
  nb::gil_scoped_release release;
  in_use.descent->grams[layer.number_bytes == 8](layer, n, places, intercept, weights, count, size,
                                                 to);
}

static void descend(nb::handle matrix, nb::handle l1, nb::handle low, nb::handle high,
                    size_t most_sweeps, double swept, nb::handle y, nb::handle slope) {
  const Held m(matrix, false), bound(l1, false), least(low, false), most(high, false);
  const Held at(y, true), g(slope, true);
  const size_t n = at.count();
  const double* numbers = static_cast<const double*>(m.contiguous('d', n * n));
  const double* bounds = static_cast<const double*>(bound.contiguous('d', n));
  const double* lows = static_cast<const double*>(least.contiguous('d', n));
  const double* highs = static_cast<const double*>(most.contiguous('d', n));
  double *to = static_cast<double*>(at.contiguous('d', n)),
         *slopes = static_cast<double*>(g.contiguous('d', n));
  nb::gil_scoped_release release;
  in_use.descent->descend(numbers, n, bounds, lows, highs, most_sweeps, swept, to, slopes);
}

static void bind_along(nb::module_& m, const char* name, Along Functions::*kernel) {
  m.def(name, [kernel](nb::handle x, nb::handle out, nb::tuple axes, nb::handle temperature,
                       nb::handle where, size_t start, ptrdiff_t stop) {
    along(kernel, x, out, axes, temperature, where, start, stop);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
}

static void bind_quick(nb::module_& m, const char* name, Along Functions::*kernel) {
  m.def(name, [kernel](nb::handle x, nb::handle axis, nb::handle out) {
    return quick(kernel, x, axis, out);
  }, nb::arg().none(), nb::arg().none(), nb::arg().none());
}

static void bind_product(nb::module_& m, const char* name, Product Functions::*kernel) {
  m.def(name, [kernel](nb::handle x, nb::handle g, nb::handle out, nb::tuple axes,
                       nb::handle temperature, nb::handle where, size_t start, ptrdiff_t stop) {
    product(kernel, x, g, out, axes, temperature, where, start, stop);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
}

static void bind_elementwise(nb::module_& m, const char* name,
                             void (*Functions::*kernel)(const void*, void*, size_t)) {
  m.def(name, [kernel](nb::handle x, nb::handle out, size_t start, ptrdiff_t stop) {
    elementwise(kernel, x, out, start, stop);
  });
}

}  // namespace softly

static int import_numpy() {
  import_array1(-1);
  return 0;
}

NB_MODULE(_native, m) {
  if (import_numpy() < 0) nb::raise_python_error();
  using softly::Functions;
  m.doc() = "softly's compiled kernels: rows [start, stop) of arrays, without the GIL.";
  m.def("use", &softly::use);
#if defined(__linux__)
  m.def("current_processor", [] { return sched_getcpu(); });
#endif
  softly::use("");
  softly::bind_quick(m, "quick_softmax", &Functions::softmax);
  softly::bind_quick(m, "quick_log_softmax", &Functions::log_softmax);
  softly::bind_along(m, "softmax", &Functions::softmax);
  softly::bind_along(m, "log_softmax", &Functions::log_softmax);
  softly::bind_along(m, "softmax_inverse", &Functions::softmax_inverse);
  m.def("logsumexp", &softly::logsumexp, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg(), nb::arg());
  softly::bind_product(m, "softmax_vjp", &Functions::softmax_vjp);
  softly::bind_product(m, "log_softmax_vjp", &Functions::log_softmax_vjp);
  softly::bind_elementwise(m, "sigmoid", &Functions::sigmoid);
  softly::bind_elementwise(m, "log_sigmoid", &Functions::log_sigmoid);
  softly::bind_elementwise(m, "exponential", &Functions::exponential);
  m.def("cross_entropy", &softly::cross_entropy, nb::arg("logits"), nb::arg("axes"),
        nb::arg("loss"), nb::arg("grad").none(), nb::arg("index").none(), nb::arg("share").none(),
        nb::arg("soft").none(), nb::arg("ignore_index").none(), nb::arg("class_weight").none(),
        nb::arg("scale"), nb::arg("smoothing"), nb::arg("z_loss"), nb::arg("cap"),
        nb::arg("focal"), nb::arg("temperature"), nb::arg("where").none(), nb::arg("start"),
        nb::arg("stop"));
  m.def("block_grams", &softly::block_grams);
  m.def("descend", &softly::descend);
  m.def("linear_gather", &softly::linear_gather);
  m.def("linear_loss", &softly::linear_loss, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg() = 0);
  m.def("linear_curvature", &softly::linear_curvature, nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg() = 0);
  m.def("check_soft", &softly::check_soft);
  m.def("total", &softly::total);
  m.def("survey", &softly::survey, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
}
