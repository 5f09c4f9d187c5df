// Layer normalisation: every row of x (R, C) gets mean 0 and variance 1, then weight and bias per column. The row lies in one
// piece, so a block reads it once and keeps it: two passes forward where batch norm needs three.
//
//     layer_norm_v1_block_per_row       the row is read three times (twice from the L1 if it fits); any C
//     layer_norm_v2_row_in_registers    the row is read once, 16 bytes a load; C % 4 = 0 and C ≤ 4·PACKS·blockDim
//     layer_norm_grad_rows              grad_x: 2 passes in, 1 out (the second reading of a row comes from the L1 or L2)
//     layer_norm_grad_columns           Σ grad_y · u and Σ grad_y per column and tile of rows; norm_grad_merge adds the tiles up
//
// Sums are per thread in order, then the same tree for every row: same input, same bits.
#include "norm.cuh"

#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif
#ifndef PACKS
#define PACKS 4
#endif

// Every thread gets the sum of a block's numbers. `shared` holds one number per warp.
__device__ __forceinline__ float sum_block(float own, float* shared) {
  own = sum_warp(own);
  __syncthreads();  // `shared` may still be read from the last time
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = own;
  __syncthreads();
  float total = 0.0f;
  for (int warp = 0; warp < blockDim.x / 32; warp++) total += shared[warp];
  return total;
}

// v1, the idea: a block per row, two passes for mean and variance, a third to write. grid (R), block (multiple of 32)
// Bytes: 4·C in (three times, at best once from memory), 4·C out. Operations: 7 per element. Share: not yet measured.
extern "C" __global__ void layer_norm_v1_block_per_row(const float* __restrict__ x, const float* __restrict__ w,
                                                       const float* __restrict__ b, float* __restrict__ y, float* __restrict__ mean,
                                                       float* __restrict__ var, float eps, int C) {
  __shared__ float shared[MAX_THREADS / 32];
  const float* row = x + (long long)blockIdx.x * C;
  float sum = 0.0f, m2 = 0.0f;
  for (int c = threadIdx.x; c < C; c += blockDim.x) sum += row[c] - row[0];  // relative to one of them: no large sums
  float centre = row[0] + sum_block(sum, shared) / C;
  for (int c = threadIdx.x; c < C; c += blockDim.x) m2 += (row[c] - centre) * (row[c] - centre);
  float spread = sum_block(m2, shared) / C, inv_std = inverse_std(spread, eps);
  for (int c = threadIdx.x; c < C; c += blockDim.x)
    y[(long long)blockIdx.x * C + c] = scaled(row[c], centre, inv_std * (w ? w[c] : 1.0f), b ? b[c] : 0.0f);
  if (threadIdx.x == 0) mean[blockIdx.x] = centre, var[blockIdx.x] = spread;
}

// v2, the idea: the row stays in registers between the passes. PACKS loads of 16 bytes are under way before the first is used.
// Bytes: 4·C in, 4·C out: the least there is. Operations: 7 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void layer_norm_v2_row_in_registers(const float* __restrict__ x, const float* __restrict__ w,
                                                          const float* __restrict__ b, float* __restrict__ y, float* __restrict__ mean,
                                                          float* __restrict__ var, float eps, int C) {
  __shared__ float shared[MAX_THREADS / 32];
  long long row = (long long)blockIdx.x * C;
  float first = x[row], sum = 0.0f, m2 = 0.0f;
  Pack<4> own[PACKS];
#pragma unroll
  for (int i = 0; i < PACKS; i++) {
    int c = (i * blockDim.x + threadIdx.x) * 4;
    own[i] = c < C ? load_pack<4>(x + row + c) : same_pack<4>(first);  // what lies outside adds 0 to the sum
  }
#pragma unroll
  for (int i = 0; i < PACKS; i++)
#pragma unroll
    for (int k = 0; k < 4; k++) sum += own[i].v[k] - first;
  float centre = first + sum_block(sum, shared) / C;
#pragma unroll
  for (int i = 0; i < PACKS; i++)
#pragma unroll
    for (int k = 0; k < 4; k++)
      if ((i * blockDim.x + threadIdx.x) * 4 < C) m2 += (own[i].v[k] - centre) * (own[i].v[k] - centre);
  float spread = sum_block(m2, shared) / C, inv_std = inverse_std(spread, eps);
#pragma unroll
  for (int i = 0; i < PACKS; i++) {
    int c = (i * blockDim.x + threadIdx.x) * 4;
    if (c < C) {
      Pack<4> weight = w ? load_pack<4>(w + c) : same_pack<4>(1.0f), shift = b ? load_pack<4>(b + c) : same_pack<4>(0.0f), result;
#pragma unroll
      for (int k = 0; k < 4; k++) result.v[k] = scaled(own[i].v[k], centre, inv_std * weight.v[k], shift.v[k]);
      store_pack<4>(y + row + c, result);
    }
  }
  if (threadIdx.x == 0) mean[blockIdx.x] = centre, var[blockIdx.x] = spread;
}

// grad_x = inv_std · (g − ⟨g⟩ − u · ⟨g·u⟩), g = grad_y · w, means over the row.   grid (R), block (multiple of 32)
// Bytes: 8·C in, 4·C out. Operations: 10 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void layer_norm_grad_rows(const float* __restrict__ grad_y, const float* __restrict__ x, const float* __restrict__ w,
                                                const float* __restrict__ mean, const float* __restrict__ var, float* __restrict__ grad_x,
                                                float eps, int C) {
  __shared__ float shared[MAX_THREADS / 32];
  long long row = (long long)blockIdx.x * C;
  float centre = mean[blockIdx.x], inv_std = inverse_std(var[blockIdx.x], eps), sum_g = 0.0f, sum_gu = 0.0f;
  for (int c = threadIdx.x; c < C; c += blockDim.x) {
    float g = grad_y[row + c] * (w ? w[c] : 1.0f);
    sum_g += g, sum_gu += g * ((x[row + c] - centre) * inv_std);
  }
  float mean_g = sum_block(sum_g, shared) / C, mean_gu = sum_block(sum_gu, shared) / C;
  for (int c = threadIdx.x; c < C; c += blockDim.x) {
    float u = (x[row + c] - centre) * inv_std;
    grad_x[row + c] = inv_std * (grad_y[row + c] * (w ? w[c] : 1.0f) - mean_g - u * mean_gu);
  }
}

// Idea: a thread owns a column and every TY-th row of its tile; neighbours read neighbours. grid (ceil(C / TX), T), block (TX, TY)
// Bytes: 8·R·C in. Operations: 5 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void layer_norm_grad_columns(const float* __restrict__ grad_y, const float* __restrict__ x,
                                                   const float* __restrict__ mean, const float* __restrict__ var,
                                                   float* __restrict__ part_g, float* __restrict__ part_gu, float eps, int R, int C,
                                                   int rows_of_tile) {
  __shared__ float shared_g[MAX_THREADS], shared_gu[MAX_THREADS];
  Tile tile = own_tile<1>(R, rows_of_tile, blockIdx.y);
  int TX = blockDim.x, TY = blockDim.y, at = threadIdx.y * TX + threadIdx.x;
  float g = 0.0f, gu = 0.0f;
  if (tile.c < C)
#pragma unroll 4
    for (int row = tile.row; row < tile.end; row += TY) {
      float grad = grad_y[(long long)row * C + tile.c];
      g += grad, gu += grad * ((x[(long long)row * C + tile.c] - mean[row]) * inverse_std(var[row], eps));
    }
  shared_g[at] = g, shared_gu[at] = gu;
  for (int step = 1; step < TY; step *= 2) {
    __syncthreads();
    if (threadIdx.y % (2 * step) == 0 && threadIdx.y + step < TY)
      shared_g[at] += shared_g[at + step * TX], shared_gu[at] += shared_gu[at + step * TX];
  }
  if (threadIdx.y == 0 && tile.c < C) {
    long long to = (long long)tile.index * C + tile.c;
    part_g[to] = shared_g[at], part_gu[to] = shared_gu[at];
  }
}
