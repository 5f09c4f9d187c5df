// maths.h: the device functions that kernels call, and memory access with a hint (__ldg). The fast approximate ones
// (__expf) are the exact ones here: what they lose on a GPU cannot be seen on a CPU.
#pragma once

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
#define __expf(x) expf(x)  // macros, because glibc declares these names
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
// Never contracted into an fma, as on the device: the detour through memory keeps g++ from it.
static inline float __fmul_rn(float a, float b) { float y = a * b; asm("" : "+m"(y)); return y; }
static inline float __fadd_rn(float a, float b) { float y = a + b; asm("" : "+m"(y)); return y; }
static inline float __fsub_rn(float a, float b) { float y = a - b; asm("" : "+m"(y)); return y; }
static inline double __dmul_rn(double a, double b) { double y = a * b; asm("" : "+m"(y)); return y; }
static inline double __dadd_rn(double a, double b) { double y = a + b; asm("" : "+m"(y)); return y; }

template <class To, class From> static inline To minidl_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return minidl_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return minidl_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return minidl_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return minidl_bits<float>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int bit = 0; bit < 32; bit++) y |= (x >> bit & 1u) << (31 - bit);
    return y;
}
static inline int __mul24(int a, int b) { return a * b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }
template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b) { return a < b ? a : b; }
template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b) { return a > b ? a : b; }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")

template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *p; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline T __ldca(const T* p) { return *p; }
template <class T> static inline void __stcs(T* p, T value) { *p = value; }
template <class T> static inline void __stcg(T* p, T value) { *p = value; }
template <class T> static inline void __stwt(T* p, T value) { *p = value; }

// One operating-system thread runs everything, so plain code is atomic; the checker is told what was meant.
#define MINIDL_ATOMIC(NAME, NEW) \
    template <class T> MINIDL_OURS static T NAME(T* p, std::common_type_t<T> v) { \
        minidl_atomic(p, sizeof(T)); \
        T old = *p; \
        *p = NEW; \
        return old; \
    }
MINIDL_ATOMIC(atomicAdd, (T)(old + v))
MINIDL_ATOMIC(atomicSub, (T)(old - v))
MINIDL_ATOMIC(atomicMax, v > old ? v : old)
MINIDL_ATOMIC(atomicMin, v < old ? v : old)
MINIDL_ATOMIC(atomicExch, v)
MINIDL_ATOMIC(atomicAnd, (T)(old & v))
MINIDL_ATOMIC(atomicOr, (T)(old | v))
template <class T> MINIDL_OURS static T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> v) {
    minidl_atomic(p, sizeof(T));
    T old = *p;
    if (old == expected) *p = v;
    return old;
}
