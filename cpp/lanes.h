// Lanes: 64 bytes of numbers worked on at once, whatever the processor's own vectors hold.
//
// A Lanes<float> is 16 numbers and a Lanes<double> 8 at every level, held in one, two or four
// native vectors. Sums are kept lane by lane and joined in one fixed order, so neither the number
// of threads nor the width of the processor's vectors changes the order of an addition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using std::size_t;

#if defined(__AVX512F__)
constexpr size_t native_bytes = 64;
#elif defined(__AVX2__)
constexpr size_t native_bytes = 32;
#else
constexpr size_t native_bytes = 16;
#endif
constexpr size_t lane_bytes = 64;
constexpr size_t parts = lane_bytes / native_bytes;

template <class T> struct Native;
template <> struct Native<float> {
  typedef float Vector __attribute__((vector_size(native_bytes)));
  typedef uint32_t Bits __attribute__((vector_size(native_bytes)));
  typedef float Half __attribute__((vector_size(native_bytes / 2)));
};
template <> struct Native<double> {
  typedef double Vector __attribute__((vector_size(native_bytes)));
  typedef uint64_t Bits __attribute__((vector_size(native_bytes)));
};
template <class T> using Vector = typename Native<T>::Vector;
template <class T> using Bits = typename Native<T>::Bits;

template <class T> constexpr size_t lanes = lane_bytes / sizeof(T);

template <class T> struct Lanes {
  Vector<T> v[parts];
};

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif

// a * b + c, rounded once where the processor has a fused multiply-add.
template <class V> inline V fused(V a, V b, V c) {
#if defined(__aarch64__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  else
    return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}
// a > b ? a : b, so that a NaN in b stays and one in a does not.
template <class V> inline V greater(V a, V b) { return a > b ? a : b; }

// The processor's own instructions, where the compiler would not find them by itself.
#if defined(__AVX512F__)
inline __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
inline __m512 greater(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
inline __m512d greater(__m512d a, __m512d b) { return _mm512_max_pd(a, b); }
#elif defined(__AVX2__)
inline __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
inline __m256 greater(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256d greater(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
#elif defined(__x86_64__)
inline __m128 greater(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
inline __m128d greater(__m128d a, __m128d b) { return _mm_max_pd(a, b); }
#endif

// The loops over parts are written out by the compiler's front end (as index sequences), since
// the optimiser would otherwise keep the parts in memory.
template <size_t i> using Index = std::integral_constant<size_t, i>;

template <class T, class F, size_t... i>
inline Lanes<T> map_parts(F f, std::index_sequence<i...>) {
  return {{f(Index<i>())...}};
}
template <class T, class F> inline Lanes<T> map(F f) {
  return map_parts<T>(f, std::make_index_sequence<parts>());
}

template <class T> inline Lanes<T> all(T x) {
  return map<T>([=](size_t) { return Vector<T>{} + x; });
}
template <class T> inline Lanes<T> load(const T* from) {
  return map<T>([=](size_t i) {
    Vector<T> v;
    __builtin_memcpy(&v, from + i * lanes<T> / parts, native_bytes);
    return v;
  });
}
template <class T> inline void store(T* to, const Lanes<T>& x) {
  map<T>([&](size_t i) {
    __builtin_memcpy(to + i * lanes<T> / parts, &x.v[i], native_bytes);
    return x.v[i];
  });
}

// To memory that will not be read soon: past the caches, without reading what stood there. The
// address must be a multiple of lane_bytes; a fence() must come before anybody else reads.
template <class T> inline void stream(T* to, const Lanes<T>& x) {
#if defined(__x86_64__)
  map<T>([&](size_t i) {
    char* at = reinterpret_cast<char*>(to) + i * native_bytes;
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(at), (__m512i)x.v[i]);
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at), (__m256i)x.v[i]);
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(at), (__m128i)x.v[i]);
#endif
    return x.v[i];
  });
#else
  store(to, x);
#endif
}
inline void fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// The first count lanes from memory, the others as fill; and the first count lanes to memory.
// Nothing beyond them is read or written.
template <class T> inline Lanes<T> load_first(const T* from, size_t count, T fill) {
  T lane[lanes<T>];
  for (size_t l = 0; l < lanes<T>; l++) lane[l] = l < count ? from[l] : fill;
  return load(lane);
}
template <class T> inline void store_first(T* to, const Lanes<T>& x, size_t count) {
  T lane[lanes<T>];
  store(lane, x);
  for (size_t l = 0; l < count; l++) to[l] = lane[l];
}
#if defined(__AVX512F__)
template <> inline Lanes<float> load_first(const float* from, size_t count, float fill) {
  return {{_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (1u << count) - 1, from)}};
}
template <> inline Lanes<double> load_first(const double* from, size_t count, double fill) {
  return {{_mm512_mask_loadu_pd(_mm512_set1_pd(fill), (1u << count) - 1, from)}};
}
template <> inline void store_first(float* to, const Lanes<float>& x, size_t count) {
  _mm512_mask_storeu_ps(to, (1u << count) - 1, x.v[0]);
}
template <> inline void store_first(double* to, const Lanes<double>& x, size_t count) {
  _mm512_mask_storeu_pd(to, (1u << count) - 1, x.v[0]);
}
#endif

template <class T> inline Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) {
  return map<T>([&](size_t i) { return a.v[i] + b.v[i]; });
}
template <class T> inline Lanes<T> operator-(const Lanes<T>& a, const Lanes<T>& b) {
  return map<T>([&](size_t i) { return a.v[i] - b.v[i]; });
}
template <class T> inline Lanes<T> operator*(const Lanes<T>& a, const Lanes<T>& b) {
  return map<T>([&](size_t i) { return a.v[i] * b.v[i]; });
}
template <class T> inline Lanes<T> operator/(const Lanes<T>& a, const Lanes<T>& b) {
  return map<T>([&](size_t i) { return a.v[i] / b.v[i]; });
}
template <class T>
inline Lanes<T> fma(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c) {
  return map<T>([&](size_t i) { return fused(a.v[i], b.v[i], c.v[i]); });
}
// As fma, but without a fused multiply-add too the product is not rounded: Dekker's product of
// halves and Knuth's sum. For numbers of moderate size.
template <class T>
inline Lanes<T> fma_exact(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c) {
  if constexpr (has_fma) return fma(a, b, c);
  const Lanes<T> splitter = all<T>(sizeof(T) == 4 ? 0x1001 : 0x8000001);
  const Lanes<T> ta = splitter * a, tb = splitter * b;
  const Lanes<T> ah = ta - (ta - a), al = a - ah, bh = tb - (tb - b), bl = b - bh;
  const Lanes<T> product = a * b;
  const Lanes<T> error = ((ah * bh - product) + ah * bl + al * bh) + al * bl;
  const Lanes<T> sum = product + c, back = sum - product;
  return sum + (((product - (sum - back)) + (c - back)) + error);
}
template <class T> inline Lanes<T> max(const Lanes<T>& a, const Lanes<T>& b) {
  return map<T>([&](size_t i) { return greater(a.v[i], b.v[i]); });
}
template <class T> inline Lanes<T> absolute(const Lanes<T>& x) {
  return map<T>([&](size_t i) { return x.v[i] < 0 ? -x.v[i] : x.v[i]; });
}
// test == 0 ? yes : no
template <class T>
inline Lanes<T> where_zero(const Lanes<T>& test, const Lanes<T>& yes, const Lanes<T>& no) {
  return map<T>([&](size_t i) { return test.v[i] == 0 ? yes.v[i] : no.v[i]; });
}
// test < 0 ? yes : no
template <class T>
inline Lanes<T> where_negative(const Lanes<T>& test, const Lanes<T>& yes, const Lanes<T>& no) {
  return map<T>([&](size_t i) { return test.v[i] < 0 ? yes.v[i] : no.v[i]; });
}

// The same numbers as doubles: two Lanes<double> for floats, one for doubles.
template <class T> struct Wide {
  static constexpr size_t count = sizeof(double) / sizeof(T);
  Lanes<double> v[count];
};

inline Wide<double> widen(const Lanes<double>& x) { return {{x}}; }
inline Lanes<double> narrow(const Wide<double>& x) { return x.v[0]; }

template <size_t half> inline Lanes<double> widen_half(const Lanes<float>& x) {
  return map<double>([&](auto i) {
    constexpr size_t quarter = half * parts + i;  // which half of which native vector
    Native<float>::Half from[2];
    __builtin_memcpy(from, &x.v[quarter / 2], native_bytes);
    return __builtin_convertvector(from[quarter % 2], Vector<double>);
  });
}
inline Wide<float> widen(const Lanes<float>& x) { return {{widen_half<0>(x), widen_half<1>(x)}}; }

inline Lanes<float> narrow(const Wide<float>& x) {  // rounded once
  return map<float>([&](auto i) {
    constexpr size_t low = 2 * i, high = low + 1;
    const Native<float>::Half from[2] = {
        __builtin_convertvector(x.v[low / parts].v[low % parts], Native<float>::Half),
        __builtin_convertvector(x.v[high / parts].v[high % parts], Native<float>::Half)};
    Vector<float> v;
    __builtin_memcpy(&v, from, native_bytes);
    return v;
  });
}

template <class T, class F, size_t... i>
inline Wide<T> map_halves(F f, std::index_sequence<i...>) {
  return {{f(i)...}};
}
template <class T, class F> inline Wide<T> map_wide(F f) {
  return map_halves<T>(f, std::make_index_sequence<Wide<T>::count>());
}

}  // namespace
