// The Python face of the kernels: checks shapes, releases the GIL, calls the level in use.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "kernels.h"

namespace nb = nanobind;

namespace softly {

extern const Level level_base, level_v2, level_v3, level_v4;

struct Named {
  const char* name;
  const Level* level;
  bool supported;
};

// The levels this module holds, best first.
static const std::vector<Named>& levels() {
  static const std::vector<Named> all = [] {
    std::vector<Named> found;
#if defined(SOFTLY_HAS_BASE)
    found.push_back({"base", &level_base, true});
#else
    __builtin_cpu_init();
    found.push_back({"v4", &level_v4, bool(__builtin_cpu_supports("x86-64-v4"))});
    found.push_back({"v3", &level_v3, bool(__builtin_cpu_supports("x86-64-v3"))});
    found.push_back({"v2", &level_v2, bool(__builtin_cpu_supports("x86-64-v2"))});
#endif
    return found;
  }();
  return all;
}

static const Level* in_use = nullptr;

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

template <class T> const Kernels<T>& kernels();
template <> const Kernels<float>& kernels() { return in_use->f32; }
template <> const Kernels<double>& kernels() { return in_use->f64; }

template <class T, int D> using In = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T, int D> using Out = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;

static void require(bool held, const char* what) {
  if (!held) throw std::invalid_argument(what);
}

static void require_range(size_t start, size_t stop, size_t n) {
  require(start <= stop && stop <= n, "the range of rows lies outside the array");
}

template <class T, class F>
void bind_rows(nb::module_& m, const char* name, F Kernels<T>::*kernel) {
  m.def(name, [kernel](In<T, 2> rows, Out<T, 2> out, size_t start, size_t stop) {
    const size_t k = rows.shape(1);
    require(out.shape(0) == rows.shape(0) && out.shape(1) == k, "out must have the shape of rows");
    require_range(start, stop, rows.shape(0));
    const T* from = rows.data() + start * k;
    T* to = out.data() + start * k;
    nb::gil_scoped_release release;
    (kernels<T>().*kernel)(from, to, stop - start, k);
  }, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}

template <class T, class F>
void bind_elements(nb::module_& m, const char* name, F Kernels<T>::*kernel) {
  m.def(name, [kernel](In<T, 1> x, Out<T, 1> out, size_t start, size_t stop) {
    require(out.shape(0) == x.shape(0), "out must have the shape of x");
    require_range(start, stop, x.shape(0));
    const T* from = x.data() + start;
    T* to = out.data() + start;
    nb::gil_scoped_release release;
    (kernels<T>().*kernel)(from, to, stop - start);
  }, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}

template <class T> void bind(nb::module_& m) {
  bind_rows<T>(m, "softmax", &Kernels<T>::softmax);
  bind_rows<T>(m, "log_softmax", &Kernels<T>::log_softmax);
  bind_elements<T>(m, "sigmoid", &Kernels<T>::sigmoid);
  bind_elements<T>(m, "log_sigmoid", &Kernels<T>::log_sigmoid);
  m.def("logsumexp", [](In<T, 2> rows, Out<T, 1> out, size_t start, size_t stop) {
    const size_t k = rows.shape(1);
    require(out.shape(0) == rows.shape(0), "out must have one entry a row");
    require_range(start, stop, rows.shape(0));
    const T* from = rows.data() + start * k;
    T* to = out.data() + start;
    nb::gil_scoped_release release;
    kernels<T>().logsumexp(from, to, stop - start, k);
  }, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
  m.def("cross_entropy", [](In<T, 2> rows, In<int64_t, 1> target, std::optional<In<T, 1>> scale,
                            Out<T, 1> loss, std::optional<Out<T, 2>> grad, size_t start,
                            size_t stop) {
    const size_t n = rows.shape(0), k = rows.shape(1);
    require(target.shape(0) == n && loss.shape(0) == n && (!scale || scale->shape(0) == n),
            "target, scale and loss must have one entry a row");
    require(!grad || (grad->shape(0) == n && grad->shape(1) == k),
            "grad must have the shape of rows");
    require_range(start, stop, n);
    const T* from = rows.data() + start * k;
    const int64_t* to_class = target.data() + start;
    const T* weight = scale ? scale->data() + start : nullptr;
    T* value = loss.data() + start;
    T* slope = grad ? grad->data() + start * k : nullptr;
    nb::gil_scoped_release release;
    kernels<T>().cross_entropy(from, to_class, weight, value, slope, stop - start, k);
  }, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
     nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg(), nb::arg());
}

}  // namespace softly

NB_MODULE(_native, m) {
  m.doc() = "softly's compiled kernels: rows [start, stop) of contiguous arrays, without the GIL.";
  m.def("use", &softly::use);
#if defined(__linux__)
  m.def("current_processor", [] { return sched_getcpu(); });
#endif
  softly::use("");
  softly::bind<float>(m);
  softly::bind<double>(m);
}
