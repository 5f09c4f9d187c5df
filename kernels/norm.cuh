// Parts of all normalisers: count, mean and M2 of some numbers, merged in a fixed order; one normalised number.
// M2 = Σ (x − mean)². Never Σx² − n·mean²: at mean/std = 1000 that has no correct digit left in 32 bits.
#pragma once
#include "pack.cuh"

template <class Real> struct Statistics { Real count, mean, m2; };

// Chan's formula: the statistics of a and b together. Not symmetric in the last bit, so the order is part of the result.
template <class Real> __device__ __forceinline__ Statistics<Real> merge(const Statistics<Real>& a, const Statistics<Real>& b) {
  if (b.count == 0) return a;
  Real n = a.count + b.count, delta = b.mean - a.mean, share = b.count / n;
  return {n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

// Lane 0 gets the statistics of all 32 lanes, always merged in the same tree.
template <class Real> __device__ __forceinline__ Statistics<Real> merge_warp(Statistics<Real> own) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Statistics<Real> other = {__shfl_down_sync(0xffffffffu, own.count, step), __shfl_down_sync(0xffffffffu, own.mean, step),
                              __shfl_down_sync(0xffffffffu, own.m2, step)};
    own = merge(own, other);
  }
  return own;
}

template <class Real> __device__ __forceinline__ Real sum_warp(Real own) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) own += __shfl_down_sync(0xffffffffu, own, step);
  return own;
}

__device__ __forceinline__ float inverse_std(float var, float eps) { return 1.0f / sqrtf(var + eps); }

// The forward in one place: a backward that asks again whether y > 0 must get the same bits, so fma is spelled out.
__device__ __forceinline__ float scaled(float x, float mean, float scale, float shift) { return fmaf(x - mean, scale, shift); }

__device__ __forceinline__ float relu(float y) { return y < 0.0f ? 0.0f : y; }  // a NaN stays one

// Where a thread works: its first channel, and its rows of x from `row` to `end` in steps of TY.
struct Tile { int c, row, end, segment, index; };

template <int WIDTH> __device__ __forceinline__ Tile own_tile(int R, int rows_of_tile, int t) {
  int first = t * rows_of_tile, last = first + rows_of_tile;
  return {(int)(blockIdx.x * blockDim.x + threadIdx.x) * WIDTH, first + (int)threadIdx.y, last < R ? last : R, (int)blockIdx.z, t};
}

// What a thread needs to know of its channels. Loaded once, used for all of its rows.
template <int WIDTH> struct Channels { Pack<WIDTH> mean, inv_std, weight, shift; };

template <int WIDTH>
__device__ __forceinline__ Channels<WIDTH> own_channels(const float* __restrict__ mean, const float* __restrict__ var,
                                                        const float* __restrict__ w, const float* __restrict__ b, float eps, int C, int G,
                                                        const Tile& tile) {
  Channels<WIDTH> own;
  int channels = C / G;
#pragma unroll
  for (int k = 0; k < WIDTH; k++) {
    int c = tile.c + k, group = tile.segment * G + c / channels;
    own.mean.v[k] = mean[group], own.inv_std.v[k] = inverse_std(var[group], eps);
    own.weight.v[k] = w ? w[c] : 1.0f, own.shift.v[k] = b ? b[c] : 0.0f;
  }
  return own;
}
