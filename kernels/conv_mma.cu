// conv_mma.cu: rungs v5 and v6 of convolution, on tensor cores (sm_80 and later, mma.sync). The maps are in maps.cuh, the pipeline
// in tile.cuh, the instruction and its fragments in mma.cuh.
//
// Grid: (tiles of BM x BN, 1, groups [x classes of grad_x] x splits of the sum); a warp makes WM x WN outputs.
// Channels of a group are multiples of 4 on both sides: the launcher pads an image of 3. POINTWISE = 1: see maps.cuh.
#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef WM
#define WM 64
#endif
#ifndef WN
#define WN 32
#endif
#ifndef STAGES
#define STAGES 3
#endif
#include "mma.cuh"
#define MMA_THREADS (BM / WM * (BN / WN) * 32)

// ---------------------------------------------------------------------------- v5: TF32
// Idea        a warp multiplies 16x8 by 8x8 with one instruction: 1024 multiply-adds. Factors are rounded to 10 bits of mantissa,
//             sums are float32.
// Block       (BM / WM) * (BN / WN) warps; 128 x 128 with warps of 64 x 32: 256 threads, each 64 sums in registers
// Memory      global as v4. Shared, per warp and 16 k: 12 16-byte reads a thread (4-byte reads, 4 times as many, where an operand
//             does not lie along k) for 32 instructions, 1 byte per 5.3 multiply-adds; STAGES * 16 * (BM + BN) * 4 = 48 KB at 3 stages
// Operations  M * N * K multiply-adds, and a rounding per number read from shared memory and use
// Share       not yet measured (expected: 55-75 % of cuDNN in TF32)

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_v5_tf32(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, float* __restrict__ y,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 1>, BM, BN, STAGES, 4>(Forward(x, w, bias, y, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_grad_x_v5_tf32(const float* __restrict__ grad_y, const float* __restrict__ w, float* __restrict__ grad_x,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 1>, BM, BN, STAGES, 4>(GradX(grad_y, w, grad_x, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_grad_w_v5_tf32(const float* __restrict__ x, const float* __restrict__ grad_y, float* __restrict__ grad_w,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 1>, BM, BN, STAGES, 4>(GradW(x, grad_y, grad_w, s, part, splits, blockIdx.z));
}

// ---------------------------------------------------------------------------- v6: 3 x TF32
// Idea        every factor is split, x = big + small, and three products make one: small*big + big*small + big*big. 22 bits of
//             mantissa of float32's 24, on tensor cores.
// Memory      as v5
// Operations  three times v5's instructions; four roundings and two subtractions per pair of factors, in registers
// Share       not yet measured (expected: 1.5-1.8 times cuDNN in float32)

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_v6_3xtf32(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, float* __restrict__ y,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 3>, BM, BN, STAGES, 4>(Forward(x, w, bias, y, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_grad_x_v6_3xtf32(const float* __restrict__ grad_y, const float* __restrict__ w, float* __restrict__ grad_x,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 3>, BM, BN, STAGES, 4>(GradX(grad_y, w, grad_x, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(MMA_THREADS, 1)
conv2d_grad_w_v6_3xtf32(const float* __restrict__ x, const float* __restrict__ grad_y, float* __restrict__ grad_w,
    int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  pipelined<TensorCores<BM, BN, WM, WN, 3>, BM, BN, STAGES, 4>(GradW(x, grad_y, grad_w, s, part, splits, blockIdx.z));
}
