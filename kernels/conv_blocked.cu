// conv_blocked.cu: rungs v3 and v4 of convolution, float32 on the ordinary cores. A thread makes 8 x 8 outputs, so that a number
// read from shared memory is used 8 times. The maps are in maps.cuh, the loops in tile.cuh; conv_mma.cu goes on with tensor cores.
//
// Grid of all: (tiles of BM x BN, 1, groups [x classes of grad_x] x splits of the sum).
// VEC = 4 where channels (of a group, on both sides) are multiples of 4, else 1. POINTWISE = 1: see maps.cuh.
#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef VEC
#define VEC 4
#endif
#include "tile.cuh"

// ---------------------------------------------------------------------------- v3: 8 x 8 outputs per thread
// Idea        per step along k a thread reads 8 + 8 numbers from shared memory and makes 64 multiply-adds of them (v2: 2 and 1),
//             16 bytes at a time; global loads are 16 bytes too.
// Block       BM * BN / 64 threads, 128 x 128 outputs: 256 threads
// Memory      global: A is loaded ceil(N / BN) times, B ceil(M / BM) times; at 128 x 128 that is 1 byte per 16 multiply-adds.
//             shared: 4 16-byte loads per 64 multiply-adds; 8 * (BM + BN + 8) * 4 = 8.4 KB
// Operations  M * N * K multiply-adds: 80 % of the loop's instructions; index arithmetic once per 16 bytes, without divisions
// Share       not yet measured (expected: 60-75 % of cuDNN in float32)
#define BLOCKED_K 8
#define BLOCKED_THREADS (BM / 8 * (BN / 8))

extern "C" __global__ void __launch_bounds__(BLOCKED_THREADS, 2)
conv2d_v3_register_blocked(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, float* __restrict__ y,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  blocked<BM, BN, BLOCKED_K, VEC>(Forward(x, w, bias, y, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(BLOCKED_THREADS, 1)
conv2d_grad_x_v3_register_blocked(const float* __restrict__ grad_y, const float* __restrict__ w, float* __restrict__ grad_x,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  blocked<BM, BN, BLOCKED_K, VEC>(GradX(grad_y, w, grad_x, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(BLOCKED_THREADS, 2)
conv2d_grad_w_v3_register_blocked(const float* __restrict__ x, const float* __restrict__ grad_y, float* __restrict__ grad_w,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  blocked<BM, BN, BLOCKED_K, VEC>(GradW(x, grad_y, grad_w, s, part, splits, blockIdx.z));
}

// ---------------------------------------------------------------------------- v4: loads under way while multiplying
// Idea        cp.async brings the next tile into the other half of shared memory while this one is multiplied: no registers wait for
//             memory, one barrier per 16 k instead of two per 8. 16-byte copies cannot turn a tile, so it stays as it lies, and a thread
//             reads 4 k at once instead of 4 rows.
// Block       as v3; a warp makes 32 x 64 outputs (tile.cuh: FusedMultiplyAdd)
// Memory      global as v3; shared: 16 16-byte loads per 256 multiply-adds, as v3; at most STAGES * 20 * (BM + BN) * 4 = 41 KB
// Operations  as v3: 82 % of the loop's instructions are multiply-adds. One block of 256 threads, up to 255 registers, a processor.
// Share       not yet measured (expected: 85-100 % of cuDNN in float32)
#ifndef STAGES
#define STAGES 2
#endif
#define PIPELINED_THREADS (BM / 32 * (BN / 64) * 32)
#define PIPELINED pipelined<FusedMultiplyAdd<BM, BN>, BM, BN, STAGES, VEC>

extern "C" __global__ void __launch_bounds__(PIPELINED_THREADS, 1)
conv2d_v4_double_buffered(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, float* __restrict__ y,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  PIPELINED(Forward(x, w, bias, y, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(PIPELINED_THREADS, 1)
conv2d_grad_x_v4_double_buffered(const float* __restrict__ grad_y, const float* __restrict__ w, float* __restrict__ grad_x,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  PIPELINED(GradX(grad_y, w, grad_x, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(PIPELINED_THREADS, 1)
conv2d_grad_w_v4_double_buffered(const float* __restrict__ x, const float* __restrict__ grad_y, float* __restrict__ grad_w,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  PIPELINED(GradW(x, grad_y, grad_w, s, part, splits, blockIdx.z));
}
