// conv.cu: the first two rungs of convolution. v1 is the formula; v2 reads each number from memory once per tile.
// The next rungs: conv_blocked.cu (v3, v4), conv_mma.cu (v5, v6); beside them conv_depthwise.cu and im2col.cu.
//
//   y[n,p,q,o]      = b[o] + sum over i,j,c of  x[n, p*SH + i*DH - PT, q*SW + j*DW - PL, c] * w[o,i,j,c]
//   grad_x[n,h,w,c] = sum over o and all i,j,p,q with  p*SH + i*DH - PT = h,  q*SW + j*DW - PL = w  of  grad_y[n,p,q,o] * w[o,i,j,c]
//   grad_w[o,i,j,c] = sum over n,p,q of  x[n, p*SH + i*DH - PT, q*SW + j*DW - PL, c] * grad_y[n,p,q,o]
//
// Arrays as they lie in memory: x N H W C, w O KH KW C/groups, y N OH OW O. Padding may differ by side and be negative:
// PT and PL are those at the top and left, OH and OW say the rest. bias may be null.
#include "maps.cuh"

#ifndef TILE      // v2: a block makes TILE x TILE outputs, one per thread
#define TILE 32
#endif
#define TILE_THREADS (TILE * TILE)

// ---------------------------------------------------------------------------- v1: one thread, one output
// Idea        every thread computes one number of the result, as the formula says it.
// Grid        1-D, any block size, one thread per element of the result, channels fastest.
// Memory      2 loads per multiply-add from the caches; neighbours in o share x (one broadcast) and read w in strides.
// Operations  N*OH*OW*O * KH*KW*C/groups multiply-adds, plus index arithmetic for each.
// Share       not yet measured (expected: 3-5 % of cuDNN in float32)
// The _f64 twins make double-precision gradient checks run on kernels too.

template <typename T>
__device__ __forceinline__ void one_output(const T* x, const T* w, const T* bias, T* y, const Conv& s) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (long long)s.N * s.OH * s.OW * s.O) return;
  const int o = at % s.O, q = at / s.O % s.OW, p = at / s.O / s.OW % s.OH, n = at / s.O / s.OW / s.OH;
  const int C = s.C / s.groups, c0 = o / (s.O / s.groups) * C;        // o's group reads channels c0 ... c0 + C - 1
  T sum = 0;
  for (int i = 0; i < s.KH; i++)
    for (int j = 0; j < s.KW; j++) {
      const int h = p * s.SH + i * s.DH - s.PT, v = q * s.SW + j * s.DW - s.PL;
      if (h < 0 || h >= s.H || v < 0 || v >= s.W) continue;          // padding
      const T* pixel = x + ((long long)(n * s.H + h) * s.W + v) * s.C + c0;
      const T* cell = w + ((long long)(o * s.KH + i) * s.KW + j) * C;
      for (int c = 0; c < C; c++) sum += pixel[c] * cell[c];
    }
  y[at] = bias ? sum + bias[o] : sum;
}

template <typename T>
__device__ __forceinline__ void one_pixel(const T* grad_y, const T* w, T* grad_x, const Conv& s) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (long long)s.N * s.H * s.W * s.C) return;
  const int c = at % s.C, v = at / s.C % s.W, h = at / s.C / s.W % s.H, n = at / s.C / s.W / s.H;
  const int C = s.C / s.groups, filters = s.O / s.groups, o0 = c / C * filters;
  T sum = 0;
  for (int i = 0; i < s.KH; i++)
    for (int j = 0; j < s.KW; j++) {
      const int hs = h + s.PT - i * s.DH, vs = v + s.PL - j * s.DW;  // p*SH and q*SW, if there are such p and q
      if (hs < 0 || hs % s.SH != 0 || hs / s.SH >= s.OH || vs < 0 || vs % s.SW != 0 || vs / s.SW >= s.OW) continue;
      const T* output = grad_y + ((long long)(n * s.OH + hs / s.SH) * s.OW + vs / s.SW) * s.O + o0;
      const T* cell = w + ((long long)(o0 * s.KH + i) * s.KW + j) * C + c % C;
      for (int o = 0; o < filters; o++) sum += output[o] * cell[(long long)o * s.KH * s.KW * C];
    }
  grad_x[at] = sum;
}

template <typename T>
__device__ __forceinline__ void one_weight(const T* x, const T* grad_y, T* grad_w, const Conv& s) {
  const int C = s.C / s.groups;
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (long long)s.O * s.KH * s.KW * C) return;
  const int c = at % C, j = at / C % s.KW, i = at / C / s.KW % s.KH, o = at / C / s.KW / s.KH;
  const int from = o / (s.O / s.groups) * C + c;
  T sum = 0;
  for (int n = 0; n < s.N; n++)
    for (int p = 0; p < s.OH; p++)
      for (int q = 0; q < s.OW; q++) {
        const int h = p * s.SH + i * s.DH - s.PT, v = q * s.SW + j * s.DW - s.PL;
        if (h < 0 || h >= s.H || v < 0 || v >= s.W) continue;
        sum += x[((long long)(n * s.H + h) * s.W + v) * s.C + from] * grad_y[((long long)(n * s.OH + p) * s.OW + q) * s.O + o];
      }
  grad_w[at] = sum;
}

extern "C" __global__ void conv2d_v1_thread_per_output(const float* __restrict__ x, const float* __restrict__ w,
    const float* __restrict__ bias, float* __restrict__ y, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_output(x, w, bias, y, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

extern "C" __global__ void conv2d_v1_thread_per_output_f64(const double* __restrict__ x, const double* __restrict__ w,
    const double* __restrict__ bias, double* __restrict__ y, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_output(x, w, bias, y, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

extern "C" __global__ void conv2d_grad_x_v1_thread_per_pixel(const float* __restrict__ grad_y, const float* __restrict__ w,
    float* __restrict__ grad_x, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_pixel(grad_y, w, grad_x, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

extern "C" __global__ void conv2d_grad_x_v1_thread_per_pixel_f64(const double* __restrict__ grad_y, const double* __restrict__ w,
    double* __restrict__ grad_x, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_pixel(grad_y, w, grad_x, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

extern "C" __global__ void conv2d_grad_w_v1_thread_per_weight(const float* __restrict__ x, const float* __restrict__ grad_y,
    float* __restrict__ grad_w, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_weight(x, grad_y, grad_w, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

extern "C" __global__ void conv2d_grad_w_v1_thread_per_weight_f64(const double* __restrict__ x, const double* __restrict__ grad_y,
    double* __restrict__ grad_w, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  one_weight(x, grad_y, grad_w, {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups});
}

// ---------------------------------------------------------------------------- v2: a tile of the product in shared memory
// Idea        convolution is a matrix product whose operands are read through an index map (maps.cuh): "implicit" because
//             im2col's matrix is never stored. A block takes a TILE x TILE piece of the result; per step of TILE along k it
//             loads a piece of A and one of B into shared memory, once, and every thread multiplies from there.
// Grid        (tiles along m x tiles along n, 1, groups [x classes of grad_x] x splits of the sum);
//             block (TILE, TILE), thread (x, y) = output (n, m).
// Memory      global: each element of A is loaded N/TILE times, each of B M/TILE times (v1: N and M times).
//             shared: 2 loads per multiply-add, one of them a broadcast: that is what limits it, and what v3 removes.
// Share       not yet measured (expected: 15-20 % of cuDNN in float32)

template <typename Map>
__device__ __forceinline__ void shared_tile(const Map& map) {
  __shared__ float A[TILE][TILE + 1], B[TILE][TILE + 1];   // [m][k] and [k][n]; one column more, or walking down it meets one bank
  const int across = (map.N + TILE - 1) / TILE, m0 = blockIdx.x / across * TILE, n0 = blockIdx.x % across * TILE;
  const int tx = threadIdx.x, ty = threadIdx.y;
  // Neighbouring threads load neighbours in memory, whichever way the operand lies.
  const int am = map.a.ALONG_K ? ty : tx, ak = map.a.ALONG_K ? tx : ty, bn = map.b.ALONG_K ? ty : tx, bk = map.b.ALONG_K ? tx : ty;
  float sum = 0.f;
  for (int k0 = map.k_begin; k0 < map.k_end; k0 += TILE) {
    const float *a = nullptr, *b = nullptr;                // ragged edges: M, N and K need not be multiples of TILE
    if (m0 + am < map.M && k0 + ak < map.k_end) a = map.a.at(map.a.row(m0 + am), map.a.depth(k0 + ak));
    if (n0 + bn < map.N && k0 + bk < map.k_end) b = map.b.at(map.b.row(n0 + bn), map.b.depth(k0 + bk));
    A[am][ak] = a ? __ldg(a) : 0.f;
    B[bk][bn] = b ? __ldg(b) : 0.f;
    __syncthreads();                                       // the tile is complete
#pragma unroll
    for (int k = 0; k < TILE; k++) sum += A[ty][k] * B[k][tx];
    __syncthreads();                                       // nobody reads it any more
  }
  if (m0 + ty < map.M && n0 + tx < map.N) map.out(m0 + ty)[n0 + tx] = sum + map.bias(n0 + tx);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS) conv2d_v2_shared_tile(const float* __restrict__ x, const float* __restrict__ w,
    const float* __restrict__ bias, float* __restrict__ y, int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  shared_tile(Forward(x, w, bias, y, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS) conv2d_grad_x_v2_shared_tile(const float* __restrict__ grad_y,
    const float* __restrict__ w, float* __restrict__ grad_x, int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  shared_tile(GradX(grad_y, w, grad_x, s, part, splits, blockIdx.z));
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS) conv2d_grad_w_v2_shared_tile(const float* __restrict__ x,
    const float* __restrict__ grad_y, float* __restrict__ grad_w, int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const Conv s = {N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups};
  shared_tile(GradW(x, grad_y, grad_w, s, part, splits, blockIdx.z));
}
