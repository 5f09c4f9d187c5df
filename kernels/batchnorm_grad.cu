// The backward of batch, instance and group normalisation; layout, geometry and letters as in batchnorm.cu.
//
// With u = (x − mean) · inv_std, g = grad_y · w (0 where a fused relu gave 0) and ⟨·⟩ the mean over a segment's group:
//
//     grad_x = inv_std · (g − ⟨g⟩ − u · ⟨g·u⟩),   grad_w = Σ grad_y · u,   grad_b = Σ grad_y,   grad_add = grad_y
//
// Five passes: the sums read grad_y and x, the apply reads both again and writes grad_x. The mask of a fused relu costs
// nothing where nothing was added: y > 0 is computed again from x, with the forward's bits. With `add`, y is read: two more.
#include "norm.cuh"

#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif
#ifndef ROWS_IN_FLIGHT
#define ROWS_IN_FLIGHT 4
#endif

// What of grad_y came through the relu. y is null where it is to be computed again.
template <int WIDTH>
__device__ __forceinline__ Pack<WIDTH> through_relu(Pack<WIDTH> grad, const Pack<WIDTH>& x, const Pack<WIDTH>& y, bool y_known,
                                                    const Channels<WIDTH>& own) {
#pragma unroll
  for (int k = 0; k < WIDTH; k++) {
    float value = y_known ? y.v[k] : scaled(x.v[k], own.mean.v[k], own.inv_std.v[k] * own.weight.v[k], own.shift.v[k]);
    if (!(value > 0.0f)) grad.v[k] = 0.0f;  // relu'(0) = 0
  }
  return grad;
}

// Σ grad_y and Σ grad_y · u of a tile, per channel.
// Idea: tiles, loads in flight and the fixed tree of the forward's statistics, with sums in place of (count, mean, M2).
// Bytes: two passes in. Operations: 5 per element. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void tile_sums(const float* __restrict__ grad_y, const float* __restrict__ x, const float* __restrict__ y,
                                          const float* __restrict__ mean, const float* __restrict__ var, const float* __restrict__ w,
                                          const float* __restrict__ b, float* __restrict__ part_g, float* __restrict__ part_gu, float eps,
                                          int with_relu, int R, int C, int G, int rows_of_tile) {
  __shared__ Pack<WIDTH> shared_g[MAX_THREADS], shared_gu[MAX_THREADS];
  Tile tile = own_tile<WIDTH>(R, rows_of_tile, blockIdx.y);
  int TX = blockDim.x, TY = blockDim.y, at = threadIdx.y * TX + threadIdx.x;
  Pack<WIDTH> g = same_pack<WIDTH>(0.0f), gu = same_pack<WIDTH>(0.0f);
  if (tile.c < C) {
    Channels<WIDTH> own = own_channels<WIDTH>(mean, var, w, b, eps, C, G, tile);
    long long column = (long long)tile.segment * R * C + tile.c;
    for (int row = tile.row; row < tile.end; row += ROWS_IN_FLIGHT * TY) {
      Pack<WIDTH> grads[ROWS_IN_FLIGHT], xs[ROWS_IN_FLIGHT], ys[ROWS_IN_FLIGHT];
#pragma unroll
      for (int i = 0; i < ROWS_IN_FLIGHT; i++) {
        long long from = column + (long long)(row + i * TY) * C;
        bool inside = row + i * TY < tile.end;  // a row outside counts 0
        grads[i] = inside ? load_pack<WIDTH>(grad_y + from) : same_pack<WIDTH>(0.0f);
        xs[i] = inside ? load_pack<WIDTH>(x + from) : own.mean;
        ys[i] = inside && with_relu && y ? load_pack<WIDTH>(y + from) : same_pack<WIDTH>(0.0f);
      }
#pragma unroll
      for (int i = 0; i < ROWS_IN_FLIGHT; i++) {
        Pack<WIDTH> grad = with_relu ? through_relu<WIDTH>(grads[i], xs[i], ys[i], y != nullptr, own) : grads[i];
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
          g.v[k] += grad.v[k];
          gu.v[k] += grad.v[k] * ((xs[i].v[k] - own.mean.v[k]) * own.inv_std.v[k]);
        }
      }
    }
  }
  shared_g[at] = g, shared_gu[at] = gu;
  for (int step = 1; step < TY; step *= 2) {
    __syncthreads();
    if (threadIdx.y % (2 * step) == 0 && threadIdx.y + step < TY)
      for (int k = 0; k < WIDTH; k++) {
        shared_g[at].v[k] += shared_g[at + step * TX].v[k];
        shared_gu[at].v[k] += shared_gu[at + step * TX].v[k];
      }
  }
  if (threadIdx.y == 0 && tile.c < C) {
    long long to = ((long long)tile.segment * gridDim.y + tile.index) * C + tile.c;  // parts are (S, T, C)
    store_pack<WIDTH>(part_g + to, shared_g[at]);
    store_pack<WIDTH>(part_gu + to, shared_gu[at]);
  }
}

// v2, the idea: tiles and tree of the forward's statistics, one channel a thread.
// Bytes: two passes in, three with y. Operations: 5 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_grad_sums_v2_tile(const float* __restrict__ grad_y, const float* __restrict__ x,
                                                  const float* __restrict__ y, const float* __restrict__ mean,
                                                  const float* __restrict__ var, const float* __restrict__ w, const float* __restrict__ b,
                                                  float* __restrict__ part_g, float* __restrict__ part_gu, float eps, int with_relu, int R,
                                                  int C, int G, int rows_of_tile) {
  tile_sums<1>(grad_y, x, y, mean, var, w, b, part_g, part_gu, eps, with_relu, R, C, G, rows_of_tile);
}

// v3, the idea: the same, four channels a thread, two (with y three) times ROWS_IN_FLIGHT loads of 16 bytes under way.
// Bytes: two passes in, three with y. Operations: 5 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_grad_sums_v3_float4(const float* __restrict__ grad_y, const float* __restrict__ x,
                                                    const float* __restrict__ y, const float* __restrict__ mean,
                                                    const float* __restrict__ var, const float* __restrict__ w,
                                                    const float* __restrict__ b, float* __restrict__ part_g, float* __restrict__ part_gu,
                                                    float eps, int with_relu, int R, int C, int G, int rows_of_tile) {
  tile_sums<4>(grad_y, x, y, mean, var, w, b, part_g, part_gu, eps, with_relu, R, C, G, rows_of_tile);
}

// From the sums of the tiles: ⟨g⟩ and ⟨g·u⟩ per segment and group, grad_w and grad_b per channel.
// Idea: a warp per number pair, each lane every 32nd part in order, in 64 bits, then a tree. The first S·G warps do the groups,
// the next C the channels. Bytes: 16·S·T·C, small. Share: not yet measured.   grid (ceil(32·(S·G + C) / blockDim.x))
extern "C" __global__ void norm_grad_merge(const float* __restrict__ part_g, const float* __restrict__ part_gu, const float* __restrict__ w,
                                           float* __restrict__ mean_g, float* __restrict__ mean_gu, float* __restrict__ grad_w,
                                           float* __restrict__ grad_b, int S, int R, int C, int G, int T) {
  int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32, groups = S * G;
  if (warp >= groups + C) return;  // a whole warp leaves, or none of it
  bool group = warp < groups;
  int channels = group ? C / G : 1, c0 = group ? warp % G * channels : warp - groups;
  int s0 = group ? warp / G : 0, tiles = group ? T : S * T;  // a channel adds up over the tiles of all segments
  double g = 0.0, gu = 0.0;
#pragma unroll 4
  for (int i = lane; i < tiles * channels; i += 32) {
    int c = c0 + i % channels;
    long long from = ((long long)s0 * T + i / channels) * C + c;
    double weight = group && w ? w[c] : 1.0;
    g += weight * part_g[from], gu += weight * part_gu[from];
  }
  g = sum_warp(g), gu = sum_warp(gu);
  if (lane != 0) return;
  if (group) {
    double n = (double)R * channels;
    mean_g[warp] = (float)(g / n), mean_gu[warp] = (float)(gu / n);
  } else {
    grad_b[c0] = (float)g, grad_w[c0] = (float)gu;
  }
}

// grad_x, and grad_add where something was added. Bytes: two passes in, one out (with add: three in, two out).
// Operations: 6 per element. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void tile_grad(const float* __restrict__ grad_y, const float* __restrict__ x, const float* __restrict__ y,
                                          const float* __restrict__ mean, const float* __restrict__ var, const float* __restrict__ w,
                                          const float* __restrict__ b, const float* __restrict__ mean_g, const float* __restrict__ mean_gu,
                                          float* __restrict__ grad_x, float* __restrict__ grad_add, float eps, int with_relu, int R, int C,
                                          int G, int rows_of_tile) {
  Tile tile = own_tile<WIDTH>(R, rows_of_tile, gridDim.y - 1 - blockIdx.y);  // the last rows first: the L2 still holds them
  if (tile.c >= C) return;
  Channels<WIDTH> own = own_channels<WIDTH>(mean, var, w, b, eps, C, G, tile);
  Pack<WIDTH> g, gu;
  for (int k = 0; k < WIDTH; k++) {
    int group = tile.segment * G + (tile.c + k) / (C / G);
    g.v[k] = mean_g[group], gu.v[k] = mean_gu[group];
  }
  long long column = (long long)tile.segment * R * C + tile.c;
  int TY = blockDim.y;
  for (int row = tile.row; row < tile.end; row += ROWS_IN_FLIGHT * TY) {
    Pack<WIDTH> grads[ROWS_IN_FLIGHT], xs[ROWS_IN_FLIGHT], ys[ROWS_IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < ROWS_IN_FLIGHT; i++)
      if (row + i * TY < tile.end) {
        long long from = column + (long long)(row + i * TY) * C;
        grads[i] = load_pack<WIDTH>(grad_y + from);
        xs[i] = load_pack<WIDTH>(x + from);
        ys[i] = with_relu && y ? load_pack<WIDTH>(y + from) : same_pack<WIDTH>(0.0f);
      }
#pragma unroll
    for (int i = 0; i < ROWS_IN_FLIGHT; i++)
      if (row + i * TY < tile.end) {
        long long to = column + (long long)(row + i * TY) * C;
        Pack<WIDTH> grad = with_relu ? through_relu<WIDTH>(grads[i], xs[i], ys[i], y != nullptr, own) : grads[i], result;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
          float u = (xs[i].v[k] - own.mean.v[k]) * own.inv_std.v[k];
          result.v[k] = own.inv_std.v[k] * (grad.v[k] * own.weight.v[k] - g.v[k] - u * gu.v[k]);
        }
        store_pack<WIDTH>(grad_x + to, result);
        if (grad_add) store_pack<WIDTH>(grad_add + to, grad);
      }
  }
}

// v2, the idea: everything that belongs to a channel stays in registers; rows from the last to the first.
// Bytes: two passes in, one out; with y and add three in, two out. Operations: 6 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_grad_apply_v2_tile(const float* __restrict__ grad_y, const float* __restrict__ x,
                                                   const float* __restrict__ y, const float* __restrict__ mean,
                                                   const float* __restrict__ var, const float* __restrict__ w, const float* __restrict__ b,
                                                   const float* __restrict__ mean_g, const float* __restrict__ mean_gu,
                                                   float* __restrict__ grad_x, float* __restrict__ grad_add, float eps, int with_relu,
                                                   int R, int C, int G, int rows_of_tile) {
  tile_grad<1>(grad_y, x, y, mean, var, w, b, mean_g, mean_gu, grad_x, grad_add, eps, with_relu, R, C, G, rows_of_tile);
}

// v3, the idea: the same, four channels a thread, 16 bytes a load and a store.
// Bytes: two passes in, one out; with y and add three in, two out. Operations: 6 per element. Share of the copy rate: not yet measured.
extern "C" __global__ void norm_grad_apply_v3_float4(const float* __restrict__ grad_y, const float* __restrict__ x,
                                                     const float* __restrict__ y, const float* __restrict__ mean,
                                                     const float* __restrict__ var, const float* __restrict__ w,
                                                     const float* __restrict__ b, const float* __restrict__ mean_g,
                                                     const float* __restrict__ mean_gu, float* __restrict__ grad_x,
                                                     float* __restrict__ grad_add, float eps, int with_relu, int R, int C, int G,
                                                     int rows_of_tile) {
  tile_grad<4>(grad_y, x, y, mean, var, w, b, mean_g, mean_gu, grad_x, grad_add, eps, with_relu, R, C, G, rows_of_tile);
}
