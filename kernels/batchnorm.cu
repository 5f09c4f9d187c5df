// Batch, instance and group normalisation of channels-last images: x is S segments of R rows of C channels.
//
//     batch     S = 1, R = N·H·W, G = C groups of one channel        instance  S = N, R = H·W, G = C        group  S = N, R = H·W, G groups
//
// y = (x − mean) · inv_std · w + b (+ add) (then relu), mean and var per segment and group. Layer norm is in layernorm.cu.
//
// The ladder (bytes in passes over a tensor of 4·S·R·C bytes; the rest is small):
//     batch_norm_v1_block_per_channel   4 passes that count 32: a warp reads 4 of every 32 bytes it fetches
//     norm_..._v2_tile                  3 forward, 5 backward: neighbouring threads read neighbouring channels
//     norm_..._v3_float4                the same, 16 bytes per load, ROWS_IN_FLIGHT loads before the first is used; C % 4 = 0
//
// Geometry of v2 and v3: blockDim (TX, TY), a thread owns 1 or 4 channels and every TY-th row of its tile;
// grid (ceil(C / (TX·WIDTH)), T tiles of rows, S). Tiles are cut by shape alone and merged in order: same input, same bits.
#include "norm.cuh"

#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif
#ifndef ROWS_IN_FLIGHT
#define ROWS_IN_FLIGHT 4
#endif

// v1, the idea: one block computes one channel, thread by thread, in two passes: the mean first, then Σ (x − mean)².
// Bytes: x is read three times and y written once, and each 4-byte access of a warp is a 32-byte sector of its own.
// Operations: about 7 per element. Share of the copy rate: not yet measured.   grid (C), block (MAX_THREADS)
extern "C" __global__ void batch_norm_v1_block_per_channel(const float* __restrict__ x, const float* __restrict__ w,
                                                           const float* __restrict__ b, float* __restrict__ y, float* __restrict__ mean,
                                                           float* __restrict__ var, float eps, int R, int C) {
  __shared__ float part[MAX_THREADS];
  int c = blockIdx.x;
  float moments[2] = {0.0f, 0.0f};
  for (int pass = 0; pass < 2; pass++) {  // pass 0: the mean; pass 1: the variance
    float own = 0.0f;
    for (int row = threadIdx.x; row < R; row += blockDim.x) {
      float d = x[(long long)row * C + c] - moments[0];
      own += pass ? d * d : d;
    }
    part[threadIdx.x] = own;
    for (int step = 1; step < blockDim.x; step *= 2) {
      __syncthreads();
      if (threadIdx.x % (2 * step) == 0 && threadIdx.x + step < blockDim.x) part[threadIdx.x] += part[threadIdx.x + step];
    }
    __syncthreads();
    moments[pass] = part[0] / R;
    __syncthreads();  // before the next pass overwrites part[0]
  }
  float scale = inverse_std(moments[1], eps) * (w ? w[c] : 1.0f), shift = b ? b[c] : 0.0f;
  for (int row = threadIdx.x; row < R; row += blockDim.x) {
    long long at = (long long)row * C + c;
    y[at] = scaled(x[at], moments[0], scale, shift);
  }
  if (threadIdx.x == 0) mean[c] = moments[0], var[c] = moments[1];
}

// Count, mean and M2 of WIDTH channels over the rows that one thread saw. The means are relative to the thread's first
// row: they stay as small as the spread, whatever the mean is, and 32 bits are enough.
template <int WIDTH> struct ColumnStatistics {
  float count;
  Pack<WIDTH> mean, m2;
};

// Add N rows at once: their mean and M2 in registers, in two passes, then one merge. One division for N·WIDTH numbers.
template <int N, int WIDTH> __device__ __forceinline__ void absorb(ColumnStatistics<WIDTH>& own, const Pack<WIDTH> (&rows)[N]) {
  float n = own.count + N, share = N / n, weight = own.count * share;
#pragma unroll
  for (int k = 0; k < WIDTH; k++) {
    float mean = 0.0f, m2 = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) mean += rows[i].v[k];
    mean *= 1.0f / N;
#pragma unroll
    for (int i = 0; i < N; i++) m2 += (rows[i].v[k] - mean) * (rows[i].v[k] - mean);
    float delta = mean - own.mean.v[k];
    own.mean.v[k] += delta * share;
    own.m2.v[k] += m2 + delta * delta * weight;
  }
  own.count = n;
}

// Statistics of a tile.
// Idea: every thread keeps (count, mean, M2) of its channels, ROWS_IN_FLIGHT rows a time; the TY threads of a channel merge
// in a fixed tree. Bytes: one pass. Operations: about 6 per element. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void tile_statistics(const float* __restrict__ x, float* __restrict__ part_mean, float* __restrict__ part_m2,
                                                int R, int C, int rows_of_tile) {
  __shared__ float counts[MAX_THREADS];
  __shared__ Pack<WIDTH> means[MAX_THREADS], m2s[MAX_THREADS];
  Tile tile = own_tile<WIDTH>(R, rows_of_tile, blockIdx.y);
  int TX = blockDim.x, TY = blockDim.y, at = threadIdx.y * TX + threadIdx.x;
  ColumnStatistics<WIDTH> own = {0.0f, same_pack<WIDTH>(0.0f), same_pack<WIDTH>(0.0f)};
  if (tile.c < C && tile.row < tile.end) {  // ragged edge: C need not fill the blocks, nor R the tiles
    const float* column = x + (long long)tile.segment * R * C + tile.c;
    Pack<WIDTH> first = load_pack<WIDTH>(column + (long long)tile.row * C);
    int row = tile.row;
    for (; row + (ROWS_IN_FLIGHT - 1) * TY < tile.end; row += ROWS_IN_FLIGHT * TY) {
      Pack<WIDTH> rows[ROWS_IN_FLIGHT];
#pragma unroll
      for (int i = 0; i < ROWS_IN_FLIGHT; i++) rows[i] = load_pack<WIDTH>(column + (long long)(row + i * TY) * C);
#pragma unroll
      for (int i = 0; i < ROWS_IN_FLIGHT; i++)
        for (int k = 0; k < WIDTH; k++) rows[i].v[k] -= first.v[k];
      absorb(own, rows);
    }
    for (; row < tile.end; row += TY) {
      Pack<WIDTH> rows[1] = {load_pack<WIDTH>(column + (long long)row * C)};
      for (int k = 0; k < WIDTH; k++) rows[0].v[k] -= first.v[k];
      absorb(own, rows);
    }
    for (int k = 0; k < WIDTH; k++) own.mean.v[k] += first.v[k];
  }
  counts[at] = own.count, means[at] = own.mean, m2s[at] = own.m2;
  for (int step = 1; step < TY; step *= 2) {
    __syncthreads();
    if (threadIdx.y % (2 * step) == 0 && threadIdx.y + step < TY) {
      int other = at + step * TX;
      float count = counts[at];
      for (int k = 0; k < WIDTH; k++) {
        Statistics<float> both = merge<float>({count, means[at].v[k], m2s[at].v[k]}, {counts[other], means[other].v[k], m2s[other].v[k]});
        counts[at] = both.count, means[at].v[k] = both.mean, m2s[at].v[k] = both.m2;
      }
    }
  }
  if (threadIdx.y == 0 && tile.c < C) {
    long long to = ((long long)tile.segment * gridDim.y + tile.index) * C + tile.c;  // parts are (S, T, C)
    store_pack<WIDTH>(part_mean + to, means[at]);
    store_pack<WIDTH>(part_m2 + to, m2s[at]);
  }
}

// v2, the idea: a tile of rows a block, one channel a thread; neighbours read neighbours.
// Bytes: one pass in. Operations: 6 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_statistics_v2_tile(const float* __restrict__ x, float* __restrict__ part_mean, float* __restrict__ part_m2,
                                                   int R, int C, int rows_of_tile) {
  tile_statistics<1>(x, part_mean, part_m2, R, C, rows_of_tile);
}

// v3, the idea: four channels a thread, 16 bytes a load, ROWS_IN_FLIGHT loads before the first is used.
// Bytes: one pass in. Operations: 6 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_statistics_v3_float4(const float* __restrict__ x, float* __restrict__ part_mean,
                                                     float* __restrict__ part_m2, int R, int C, int rows_of_tile) {
  tile_statistics<4>(x, part_mean, part_m2, R, C, rows_of_tile);
}

// All tiles of a group become its mean and variance.
// Idea: a warp per segment and group; every lane merges each 32nd part in order, in 64 bits, then the lanes merge in a tree.
// Bytes: 8·S·T·C, small. Share: not yet measured.   grid (ceil(32·S·G / blockDim.x)), block (multiple of 32)
extern "C" __global__ void norm_merge(const float* __restrict__ part_mean, const float* __restrict__ part_m2, float* __restrict__ mean,
                                      float* __restrict__ var, int S, int R, int C, int G, int T, int rows_of_tile) {
  int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (warp >= S * G) return;  // a whole warp leaves, or none of it
  int s = warp / G, channels = C / G, first = warp % G * channels;
  Statistics<double> own = {0.0, 0.0, 0.0};
#pragma unroll 4
  for (int i = lane; i < T * channels; i += 32) {
    int t = i / channels, rest = R - t * rows_of_tile;
    long long from = ((long long)s * T + t) * C + first + i % channels;
    own = merge<double>(own, {(double)(rest < rows_of_tile ? rest : rows_of_tile), part_mean[from], part_m2[from]});
  }
  own = merge_warp(own);
  if (lane == 0) mean[warp] = (float)own.mean, var[warp] = (float)(own.m2 / own.count);
}

// y = scaled x (+ add) (then relu).
// Idea: tiles as for the statistics, but walked from the last to the first: the end of x is what the L2 still holds. That is within
// a segment: where there are many (instance and group norm), each is short, and they are taken in order.
// Bytes: one pass in, one out (one more for add). Operations: 2 per element. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void tile_apply(const float* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                                           const float* __restrict__ w, const float* __restrict__ b, const float* __restrict__ add,
                                           float* __restrict__ y, float eps, int with_relu, int R, int C, int G, int rows_of_tile) {
  Tile tile = own_tile<WIDTH>(R, rows_of_tile, gridDim.y - 1 - blockIdx.y);
  if (tile.c >= C) return;
  Channels<WIDTH> channels = own_channels<WIDTH>(mean, var, w, b, eps, C, G, tile);
  long long column = (long long)tile.segment * R * C + tile.c;
  int TY = blockDim.y;
  for (int row = tile.row; row < tile.end; row += ROWS_IN_FLIGHT * TY) {
    Pack<WIDTH> xs[ROWS_IN_FLIGHT], adds[ROWS_IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < ROWS_IN_FLIGHT; i++)
      if (row + i * TY < tile.end) {
        xs[i] = load_pack<WIDTH>(x + column + (long long)(row + i * TY) * C);
        adds[i] = add ? load_pack<WIDTH>(add + column + (long long)(row + i * TY) * C) : same_pack<WIDTH>(0.0f);
      }
#pragma unroll
    for (int i = 0; i < ROWS_IN_FLIGHT; i++)
      if (row + i * TY < tile.end) {
        Pack<WIDTH> result;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
          float value = scaled(xs[i].v[k], channels.mean.v[k], channels.inv_std.v[k] * channels.weight.v[k], channels.shift.v[k]);
          if (add) value += adds[i].v[k];
          result.v[k] = with_relu ? relu(value) : value;
        }
        store_pack<WIDTH>(y + column + (long long)(row + i * TY) * C, result);
      }
  }
}

// v2, the idea: one channel a thread, whose mean and scale stay in registers for all its rows.
// Bytes: one pass in, one out, one more in with add. Operations: 2 to 4 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_apply_v2_tile(const float* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                                              const float* __restrict__ w, const float* __restrict__ b, const float* __restrict__ add,
                                              float* __restrict__ y, float eps, int with_relu, int R, int C, int G, int rows_of_tile) {
  tile_apply<1>(x, mean, var, w, b, add, y, eps, with_relu, R, C, G, rows_of_tile);
}

// v3, the idea: the same, four channels a thread, 16 bytes a load and a store.
// Bytes: one pass in, one out, one more in with add. Operations: 2 to 4 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_apply_v3_float4(const float* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                                                const float* __restrict__ w, const float* __restrict__ b, const float* __restrict__ add,
                                                float* __restrict__ y, float eps, int with_relu, int R, int C, int G, int rows_of_tile) {
  tile_apply<4>(x, mean, var, w, b, add, y, eps, with_relu, R, C, G, rows_of_tile);
}

// grid (ceil(C / blockDim.x))
// The idea: both averages in one launch: running ← (1 − momentum) · running + momentum · new, the variance times n / (n − 1).
// Bytes: 24·C. Operations: 7 per channel. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_running_averages(const float* __restrict__ mean, const float* __restrict__ var,
                                                 float* __restrict__ running_mean, float* __restrict__ running_var, float momentum,
                                                 float unbias, int C) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= C) return;
  if (running_mean) running_mean[c] = (1.0f - momentum) * running_mean[c] + momentum * mean[c];
  if (running_var) running_var[c] = (1.0f - momentum) * running_var[c] + momentum * (var[c] * unbias);
}
