// target[keys[k], :] += values[k, :] where keys repeat, without atomics: keys come sorted, and everything that goes to one place is
// added by one owner, in the order in which it stood. Same input, same bits. This is the gradient of every index: embedding,
// gather, x[[0, 2, 0]], max_unpool.
//
//     order[k] is where the k-th smallest key stood (a stable sort), keys[k] that key; a run is a piece of equal keys.
//     add_at_v1_thread_per_run    a thread per run and column: neighbours have neighbouring columns. For wide rows, short runs
//     add_at_v2_warp_per_run      a warp per run and column, the lanes share the run. For narrow rows, and for long runs
//
// Bytes: 4·n·D values in, 16·n keys and order in (from the caches for D > 1), 8·D per run for target. Operations: 1 per value.
// Share of the copy rate: not yet measured.   grid (ceil(n·D / blockDim.x)) for v1, (ceil(32·n·D / blockDim.x)) for v2
#include "norm.cuh"

// v1, the idea: a thread per run and column adds the run up in order. For wide rows and short runs.
// Bytes: 4·n·D in, 8·D per run. Operations: 1 per value. Share of the copy rate: not yet measured.
extern "C" __global__ void add_at_v1_thread_per_run(float* __restrict__ target, const long long* __restrict__ keys,
                                                    const long long* __restrict__ order, const float* __restrict__ values, long long n,
                                                    int D) {
  long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, k = thread / D;
  if (k >= n || (k > 0 && keys[k - 1] == keys[k])) return;  // not the first of its run
  long long key = keys[k], d = thread % D;
  double sum = 0.0;
  for (; k < n && keys[k] == key; k++) sum += values[order[k] * D + d];
  target[key * D + d] += (float)sum;
}

// v2, the idea: a warp per run and column, lane k every 32nd row of it, then a tree. For narrow rows and long runs.
// Bytes: 4·n·D in, 8·D per run. Operations: 1 per value. Share of the copy rate: not yet measured.
extern "C" __global__ void add_at_v2_warp_per_run(float* __restrict__ target, const long long* __restrict__ keys,
                                                  const long long* __restrict__ order, const float* __restrict__ values, long long n,
                                                  int D) {
  long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32, k = warp / D;
  int lane = threadIdx.x % 32;
  if (k >= n || (k > 0 && keys[k - 1] == keys[k])) return;  // a whole warp leaves, or none of it
  long long key = keys[k], d = warp % D;
  double sum = 0.0;
  for (k += lane; k < n && keys[k] == key; k += 32) sum += values[order[k] * D + d];
  sum = sum_warp(sum);
  if (lane == 0) target[key * D + d] += (float)sum;
}
