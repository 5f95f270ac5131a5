// Lanes: 64 bytes of numbers worked on at once, whatever the processor's own vectors hold.
//
// A Lanes<float> is 16 numbers and a Lanes<double> 8 at every level, held in one, two or four
// native vectors. Sums are kept lane by lane and joined in one fixed order, so neither the number
// of threads nor the width of the processor's vectors changes the order of an addition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
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
  typedef uint16_t Shorts __attribute__((vector_size(native_bytes / 2)));
};
template <> struct Native<double> {
  typedef double Vector __attribute__((vector_size(native_bytes)));
  typedef uint64_t Bits __attribute__((vector_size(native_bytes)));
};
template <class T> using Vector = typename Native<T>::Vector;
template <class T> using Bits = typename Native<T>::Bits;
using Shorts = Native<float>::Shorts;

template <class T> constexpr size_t lanes = lane_bytes / sizeof(T);
template <class T> constexpr size_t native = native_bytes / sizeof(T);

template <class T> struct Lanes {
  Vector<T> v[parts];
};

// How numbers stand in memory: float and double as they are, the half types as their bits.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
// What they are worked on in.
template <class S> struct ComputeOf { using Type = float; };
template <> struct ComputeOf<double> { using Type = double; };
template <> struct ComputeOf<uint8_t> { using Type = void; };  // a mask's bytes: read one by one
template <class S> struct ComputeOf<const S> : ComputeOf<S> {};
template <class S> using Compute = typename ComputeOf<S>::Type;

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
inline __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
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

// ---- memory ----

template <class V, class S> inline V copied(const S* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

// The bits of float16 to float and back, rounded to nearest, ties to even.
inline Vector<float> from_float16(Shorts bits) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__)
  return _mm256_cvtph_ps((__m128i)bits);
#elif defined(__aarch64__)
  return (Vector<float>)vcvt_f32_f16((float16x4_t)bits);
#else
  const Bits<float> h = __builtin_convertvector(bits, Bits<float>);
  const Vector<float> magnitude = (Vector<float>)((h & 0x7fff) << 13) * 0x1p112f;
  const Bits<float> special = (h & 0x7c00) == 0x7c00 ? Bits<float>{} + 0x7f800000 : Bits<float>{};
  return (Vector<float>)((Bits<float>)magnitude | special | (h & 0x8000) << 16);
#endif
}
inline Shorts to_float16(Vector<float> x) {
#if defined(__AVX512F__)
  return (Shorts)_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
  return (Shorts)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
  return (Shorts)vcvt_f16_f32((float32x4_t)x);
#else
  const Bits<float> bits = (Bits<float>)x, u = bits & 0x7fffffff, zero = {};
  const Bits<float> normal = (u + (0xc8000fff + ((u >> 13) & 1))) >> 13;
  const Bits<float> subnormal = (Bits<float>)((Vector<float>)u + 0.5f) - 0x3f000000;
  const Bits<float> special = u > 0x7f800000 ? zero + 0x7e00 : zero + 0x7c00;
  const Bits<float> h = u < 0x38800000 ? subnormal : u < 0x47800000 ? normal : special;
  return __builtin_convertvector(h | (bits >> 31) << 15, Shorts);
#endif
}
// Whole numbers of 16 bits to 32 and back, the lower half; GCC would take these apart.
inline Bits<float> as_words(Shorts x) {
#if defined(__AVX512F__)
  return (Bits<float>)_mm512_cvtepu16_epi32((__m256i)x);
#else
  return __builtin_convertvector(x, Bits<float>);
#endif
}
inline Shorts as_shorts(Bits<float> x) {
#if defined(__AVX512F__)
  return (Shorts)_mm512_cvtepi32_epi16((__m512i)x);
#else
  return __builtin_convertvector(x, Shorts);
#endif
}
inline Vector<float> from_bfloat16(Shorts bits) { return (Vector<float>)(as_words(bits) << 16); }
inline Shorts to_bfloat16(Vector<float> x) {
  const Bits<float> u = (Bits<float>)x, nan = Bits<float>{} + 0x7fc0;
  const Bits<float> rounded = (u + (0x7fff + ((u >> 16) & 1))) >> 16;
  return as_shorts((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

// One native vector from memory, and one as it is to stand there.
inline Vector<float> widened(const float* from) { return copied<Vector<float>>(from); }
inline Vector<double> widened(const double* from) { return copied<Vector<double>>(from); }
inline Vector<float> widened(const Float16* from) { return from_float16(copied<Shorts>(from)); }
inline Vector<float> widened(const BFloat16* from) { return from_bfloat16(copied<Shorts>(from)); }
template <class S> inline auto narrowed(Vector<Compute<S>> x) {
  if constexpr (sizeof(S) == 2)
    return __is_same(S, Float16) ? to_float16(x) : to_bfloat16(x);
  else
    return x;
}

// The first count numbers, zeros after them; nothing beyond is read.
template <class S> inline auto widened_first(const S* from, size_t count) {
#if defined(__AVX512F__)
  if constexpr (__is_same(S, float))
    return (Vector<float>)_mm512_maskz_loadu_ps((1u << count) - 1, from);
  else if constexpr (__is_same(S, double))
    return (Vector<double>)_mm512_maskz_loadu_pd((1u << count) - 1, from);
  else
#endif
  {
    S near[native<Compute<S>>] = {};
    __builtin_memcpy(near, from, count * sizeof(S));
    return widened(near);
  }
}

template <class S> inline Lanes<Compute<S>> load(const S* from) {
  using T = Compute<S>;
  return map<T>([=](size_t i) { return widened(from + i * native<T>); });
}
template <class S> inline void store(S* to, const Lanes<Compute<S>>& x) {
  using T = Compute<S>;
  map<T>([&](size_t i) {
    const auto v = narrowed<S>(x.v[i]);
    __builtin_memcpy(to + i * native<T>, &v, sizeof(v));
    return x.v[i];
  });
}

// To memory that will not be read soon: past the caches, without reading what stood there. The
// address must be a multiple of lanes * sizeof(S); a fence() must come before anybody else reads.
template <class S> inline void stream(S* to, const Lanes<Compute<S>>& x) {
#if defined(__x86_64__)
  using T = Compute<S>;
  map<T>([&](size_t i) {
    const auto v = narrowed<S>(x.v[i]);
    void* at = to + i * native<T>;
#if defined(__AVX512F__)
    if constexpr (sizeof(v) == 64) _mm512_stream_si512(static_cast<__m512i*>(at), (__m512i)v);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(v) == 32) _mm256_stream_si256(static_cast<__m256i*>(at), (__m256i)v);
#endif
    if constexpr (sizeof(v) == 16) _mm_stream_si128(static_cast<__m128i*>(at), (__m128i)v);
    if constexpr (sizeof(v) == 8)
      _mm_stream_si64(static_cast<long long*>(at), copied<long long>(&v));
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

// Lanes [first, last) from memory, where lane 0 would stand at `from`, the others as fill; and the
// first count lanes from and to memory. Nothing beyond them is read or written.
template <class S>
inline Lanes<Compute<S>> load_between(const S* from, size_t first, size_t last, Compute<S> fill) {
  using T = Compute<S>;
#if defined(__AVX512F__)
  const auto mask = uint16_t((1u << last) - (1u << first));
  if constexpr (__is_same(T, double)) {
    return {{_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8(mask), from)}};
  } else if constexpr (__is_same(S, float)) {
    return {{_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, from)}};
  } else {
    const auto bits = (Shorts)_mm256_maskz_loadu_epi16(mask, from);
    const __m512 x = __is_same(S, Float16) ? from_float16(bits) : from_bfloat16(bits);
    return {{_mm512_mask_mov_ps(_mm512_set1_ps(fill), mask, x)}};
  }
#else
  alignas(lane_bytes) S near[lanes<T>] = {};
  __builtin_memcpy(near + first, from + first, (last - first) * sizeof(S));
  alignas(lane_bytes) T lane[lanes<T>];
  store(lane, load(near));
  for (size_t l = 0; l < first; l++) lane[l] = fill;
  for (size_t l = last; l < lanes<T>; l++) lane[l] = fill;
  return load(lane);
#endif
}
template <class S>
inline Lanes<Compute<S>> load_first(const S* from, size_t count, Compute<S> fill) {
  return load_between(from, 0, count, fill);
}
template <class S> inline void store_first(S* to, const Lanes<Compute<S>>& x, size_t count) {
#if defined(__AVX512F__)
  const auto mask = uint16_t((1u << count) - 1);
  if constexpr (sizeof(S) == 8)
    _mm512_mask_storeu_pd(to, __mmask8(mask), x.v[0]);
  else if constexpr (sizeof(S) == 4)
    _mm512_mask_storeu_ps(to, mask, x.v[0]);
  else
    _mm256_mask_storeu_epi16(to, mask, (__m256i)narrowed<S>(x.v[0]));
#else
  alignas(lane_bytes) S near[lanes<Compute<S>>];
  store(near, x);
  __builtin_memcpy(to, near, count * sizeof(S));
#endif
}

// One number, as it stands in memory and as it is worked on.
inline float number(float x) { return x; }
inline double number(double x) { return x; }
inline float number(uint8_t x) { return x; }
inline float number(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  return copied<float>(&bits);
}
inline float number(Float16 x) {
  Float16 near[native<float>] = {x};
  return widened(near)[0];
}
template <class S> inline S stored(Compute<S> x) {
  if constexpr (sizeof(S) == 2)
    return {narrowed<S>(Vector<float>{x})[0]};  // the sign of a zero too
  else
    return x;
}

// ---- transposition ----

// The even (odd = 0) or odd numbers of a, then those of b: number by number within each 128 bits,
// or of whole 128 bits. Both are one instruction of every vector set.
template <class T> constexpr size_t quarter = 16 / sizeof(T);  // numbers in 128 bits

template <size_t odd, class T, size_t... i>
[[gnu::always_inline]] inline Vector<T> every_other(Vector<T> a, Vector<T> b,
                                                    std::index_sequence<i...>) {
  constexpr size_t g = quarter<T>, half = g / 2;
  return __builtin_shufflevector(
      a, b, (i % g / half * native<T> + i / g * g + 2 * (i % half) + odd)...);
}
template <size_t odd, class T, size_t... i>
[[gnu::always_inline]] inline Vector<T> every_other_quarter(Vector<T> a, Vector<T> b,
                                                            std::index_sequence<i...>) {
  constexpr size_t g = quarter<T>, half = native<T> / g / 2;
  return __builtin_shufflevector(
      a, b, (i / g / half * native<T> + (2 * (i / g % half) + odd) * g + i % g)...);
}

// n native vectors of n numbers, rows to columns. Taking the even and then the odd numbers of pairs
// moves one bit of the row's number into the column's; first within 128 bits, then across them.
template <class T> [[gnu::always_inline]] inline void transpose(Vector<T> (&rows)[native<T>]) {
  constexpr size_t n = native<T>, g = quarter<T>, groups = n / g;
  constexpr std::make_index_sequence<n> all{};
  Vector<T> next[n];
#pragma GCC unroll 2
  for (size_t stage = 1; stage < g; stage *= 2) {
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i += 2) {
      const size_t to = i / g * g + i % g / 2;
      next[to] = every_other<0, T>(rows[i], rows[i + 1], all);
      next[to + g / 2] = every_other<1, T>(rows[i], rows[i + 1], all);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++) rows[i] = next[i];
  }
#pragma GCC unroll 2
  for (size_t stage = 1; stage < groups; stage *= 2) {
#pragma GCC unroll 16
    for (size_t i = 0; i < n / 2; i++) {
      const size_t q = i / g, j = i % g, to = q * g + j;
      const Vector<T> a = rows[2 * q * g + j], b = rows[(2 * q + 1) * g + j];
      if constexpr (groups > 1) {
        next[to] = every_other_quarter<0, T>(a, b, all);
        next[to + n / 2] = every_other_quarter<1, T>(a, b, all);
      }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++) rows[i] = next[i];
  }
}

// ---- arithmetic ----

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
// f over all lanes, by halves: lane l with lane l + half.
template <class V, class F> inline auto folded_vector(V v, F f) {
  constexpr size_t half = sizeof(V) / sizeof(v[0]) / 2;
  if constexpr (half == 1) {
    return f(v[0], v[1]);
  } else {
    const auto halves = [&]<size_t... i>(std::index_sequence<i...>) {
      return f(__builtin_shufflevector(v, v, i...), __builtin_shufflevector(v, v, (half + i)...));
    };
    return folded_vector(halves(std::make_index_sequence<half>()), f);
  }
}
template <class T, class F> inline T folded(const Lanes<T>& x, F f) {
  if constexpr (parts == 1) return folded_vector(x.v[0], f);
  if constexpr (parts == 2) return folded_vector(f(x.v[0], x.v[1]), f);
  if constexpr (parts == 4)
    return folded_vector(f(f(x.v[0], x.v[2]), f(x.v[1], x.v[3])), f);
}

// Is x - x zero everywhere: no infinity, no NaN?
template <class T> inline bool all_finite(const Lanes<T>& x) {
  Bits<T> odd = {};
  map<T>([&](size_t i) {
    odd |= x.v[i] - x.v[i] == 0 ? Bits<T>{} : ~Bits<T>{};
    return x.v[i];
  });
  uint64_t word[native_bytes / 8], any = 0;
  __builtin_memcpy(word, &odd, sizeof(word));
  for (uint64_t w : word) any |= w;
  return any == 0;
}
// test == 0 ? yes : no
template <class T>
inline Lanes<T> where_zero(const Lanes<T>& test, const Lanes<T>& yes, const Lanes<T>& no) {
  return map<T>([&](size_t i) { return test.v[i] == 0 ? yes.v[i] : no.v[i]; });
}
// y * 2^n for a y near 1 and a whole n <= 0, rounded once; NaN stays NaN. The low bits of shifted
// hold n + lift, so that 2^(n + lift) y is normal; unlift = 2^-lift.
template <class T>
inline Lanes<T> times_power_of_two(const Lanes<T>& y, [[maybe_unused]] const Lanes<T>& n,
                                   [[maybe_unused]] const Lanes<T>& shifted,
                                   [[maybe_unused]] int mantissa, [[maybe_unused]] T unlift) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {{_mm512_scalef_ps(y.v[0], n.v[0])}};
  else
    return {{_mm512_scalef_pd(y.v[0], n.v[0])}};
#else
  return map<T>([&](size_t i) {
    const Bits<T> scaled = (Bits<T>)y.v[i] + ((Bits<T>)shifted.v[i] << mantissa);
    return (Vector<T>)scaled * unlift + (y.v[i] - y.v[i]);  // NaN's bits may lose theirs
  });
#endif
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

// GCC would take these apart.
using HalfVector = Native<float>::Half;
inline Vector<double> as_doubles(HalfVector x) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(x);
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(x);
#else
  return __builtin_convertvector(x, Vector<double>);
#endif
}
inline HalfVector as_floats(Vector<double> x) {  // rounded once
#if defined(__AVX512F__)
  return _mm512_cvtpd_ps(x);
#elif defined(__AVX2__)
  return _mm256_cvtpd_ps(x);
#else
  return __builtin_convertvector(x, HalfVector);
#endif
}
template <size_t which> inline HalfVector half_of(Vector<float> x) {
#if defined(__AVX512F__)
  return _mm512_extractf32x8_ps(x, which);
#elif defined(__AVX2__)
  return _mm256_extractf128_ps(x, which);
#else
  return copied<HalfVector>(reinterpret_cast<const char*>(&x) + which * sizeof(HalfVector));
#endif
}
inline Vector<float> joined(HalfVector low, HalfVector high) {
#if defined(__AVX512F__)
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
#else
  const HalfVector from[2] = {low, high};
  return copied<Vector<float>>(from);
#endif
}

template <size_t half> inline Lanes<double> widen_half(const Lanes<float>& x) {
  return map<double>([&](auto i) {
    constexpr size_t quarter = half * parts + i;  // which half of which native vector
    return as_doubles(half_of<quarter % 2>(x.v[quarter / 2]));
  });
}
inline Wide<float> widen(const Lanes<float>& x) { return {{widen_half<0>(x), widen_half<1>(x)}}; }

inline Lanes<float> narrow(const Wide<float>& x) {  // rounded once
  return map<float>([&](auto i) {
    constexpr size_t low = 2 * i, high = low + 1;
    return joined(as_floats(x.v[low / parts].v[low % parts]),
                  as_floats(x.v[high / parts].v[high % parts]));
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
