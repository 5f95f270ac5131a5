// Lanes: 64 bytes of numbers worked on at once, whatever the processor's own vectors hold.
//
// A Lanes<float> is 16 numbers and a Lanes<double> 8 at every level, held in one, two or four
// native vectors. Sums are kept lane by lane and joined in one fixed order, so neither the number
// of threads nor the width of the processor's vectors changes the order of an addition.
#pragma once

#include <cstddef>
#include <cstdint>
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

// a * b + c, rounded once where the processor can.
template <class V> inline V fused(V a, V b, V c) { return a * b + c; }
// a > b ? a : b, so that a NaN in b stays and one in a does not.
template <class V> inline V greater(V a, V b) { return a > b ? a : b; }

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
#elif defined(__aarch64__)
inline float32x4_t fused(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
inline float64x2_t fused(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmaq_f64(c, a, b); }
#endif

template <class T, class F> inline Lanes<T> map(F f) {
  Lanes<T> out;
  for (size_t i = 0; i < parts; i++) out.v[i] = f(i);
  return out;
}

template <class T> inline Lanes<T> all(T x) {
  return map<T>([=](size_t) { return Vector<T>{} + x; });
}
template <class T> inline Lanes<T> load(const T* from) {
  Lanes<T> out;
  __builtin_memcpy(&out, from, lane_bytes);
  return out;
}
template <class T> inline void store(T* to, const Lanes<T>& x) {
  __builtin_memcpy(to, &x, lane_bytes);
}
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
inline Wide<float> widen(const Lanes<float>& x) {
  Vector<double> wide[2 * parts];
  for (size_t i = 0; i < parts; i++) {
    Native<float>::Half half[2];
    __builtin_memcpy(half, &x.v[i], sizeof half);
    wide[2 * i] = __builtin_convertvector(half[0], Vector<double>);
    wide[2 * i + 1] = __builtin_convertvector(half[1], Vector<double>);
  }
  Wide<float> out;
  __builtin_memcpy(&out, wide, sizeof out);
  return out;
}
inline Lanes<float> narrow(const Wide<float>& x) {  // rounded once
  Native<float>::Half half[2 * parts];
  for (size_t i = 0; i < 2 * parts; i++)
    half[i] = __builtin_convertvector(x.v[i / parts].v[i % parts], Native<float>::Half);
  Lanes<float> out;
  __builtin_memcpy(&out, half, sizeof out);
  return out;
}
template <class T, class F> inline Wide<T> map_wide(F f) {
  Wide<T> out;
  for (size_t i = 0; i < Wide<T>::count; i++) out.v[i] = f(i);
  return out;
}

}  // namespace
