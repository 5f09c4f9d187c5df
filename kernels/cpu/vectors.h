// vectors.h: CUDA's short vectors with CUDA's alignment: float4 is loaded in one piece, from addresses divisible by 16.
#pragma once

#define MINIDL_VECTORS(T, NAME, ALIGN2, ALIGN4) \
    struct NAME##1 { T x; }; \
    struct __attribute__((aligned(ALIGN2))) NAME##2 { T x, y; }; \
    struct NAME##3 { T x, y, z; }; \
    struct __attribute__((aligned(ALIGN4))) NAME##4 { T x, y, z, w; }; \
    MINIDL_MAKERS(T, NAME)
#define MINIDL_MAKERS(T, NAME) \
    static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; } \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; } \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
MINIDL_VECTORS(float, float, 8, 16)
MINIDL_VECTORS(int, int, 8, 16)
MINIDL_VECTORS(double, double, 16, 16)
MINIDL_VECTORS(uchar, uchar, 2, 4)
MINIDL_VECTORS(long long, longlong, 16, 16)
struct uint1 { unsigned x; };
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
MINIDL_MAKERS(unsigned, uint)
