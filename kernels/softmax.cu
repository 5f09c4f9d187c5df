// softmax and log_softmax along one axis, and cross-entropy with label smoothing, forward and backward.
//
// A line is the n numbers that become shares of 1. x is (outer, n, inner) as it lies in memory: inner = 1 where the lines are rows.
//     softmax_v1_thread_per_line        any axis; the line is read three times; for rows, neighbouring threads are n numbers apart
//     softmax_v2_warp_per_row           inner = 1, n ≤ 32·KEPT: the row is read once and stays in the registers of a warp
//     softmax_v3_block_per_row_online   inner = 1, any n: largest number and sum of exponentials in one reading, then one more
//
// The largest number is subtracted first: it changes nothing in the quotient and keeps every exponential at 1 or below.
// A NaN or +∞ makes its line NaN, a line of −∞ alone is 0/0, NaN; both as in minidl/backend/generic/softmax.py.
// Sums are per thread in order, then the same tree for every line: same input, same bits. No atomics.
#include "norm.cuh"

#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif
#ifndef KEPT
#define KEPT 32
#endif

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// A number below the largest, as softmax or as its logarithm.
__device__ __forceinline__ float share(float below, float sum, float log_sum, int logarithm) {
  return logarithm ? below - log_sum : expf(below) / sum;
}

// Largest number so far, and Σ exp(x − largest). Merging two of them is what "online" means: the sum with the smaller
// largest number is scaled down. NaN never is the largest, but is in the sum for good.
struct Online { float largest, sum; };

__device__ __forceinline__ Online merge(const Online& a, const Online& b) {
  float largest = fmaxf(a.largest, b.largest);
  float from_a = a.largest == largest ? a.sum : a.sum * expf(a.largest - largest);  // equal: −∞ − (−∞) would be NaN
  float from_b = b.largest == largest ? b.sum : b.sum * expf(b.largest - largest);
  return {largest, from_a + from_b};
}

// Every lane gets the result for the warp: in each step both partners merge the same two in the same order.
__device__ __forceinline__ Online merge_lanes(Online own) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    Online other = {__shfl_xor_sync(0xffffffffu, own.largest, step), __shfl_xor_sync(0xffffffffu, own.sum, step)};
    own = threadIdx.x & step ? merge(other, own) : merge(own, other);
  }
  return own;
}

__device__ __forceinline__ float sum_lanes(float own) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) own += __shfl_xor_sync(0xffffffffu, own, step);  // a + b = b + a, also in the last bit
  return own;
}

__device__ __forceinline__ float max_lanes(float own) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) own = fmaxf(own, __shfl_xor_sync(0xffffffffu, own, step));
  return own;
}

// v1, the idea: a thread per line, as the formula is written: the largest, the sum, the shares.
// Bytes: 12·n in, 4·n out per line. Operations: 2 exponentials per element. Share of the copy rate: not yet measured.
// grid (ceil(lines / blockDim.x)), lines = outer · inner
extern "C" __global__ void softmax_v1_thread_per_line(const float* __restrict__ x, float* __restrict__ y, long long lines, int n, int inner,
                                                      int logarithm) {
  long long line = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (line >= lines) return;
  long long at = line / inner * n * inner + line % inner;
  float largest = x[at], sum = 0.0f;
  for (int k = 1; k < n; k++) largest = fmaxf(largest, x[at + (long long)k * inner]);
  for (int k = 0; k < n; k++) sum += expf(x[at + (long long)k * inner] - largest);
  float log_sum = logf(sum);
  for (int k = 0; k < n; k++) y[at + (long long)k * inner] = share(x[at + (long long)k * inner] - largest, sum, log_sum, logarithm);
}

// v2, the idea: a warp per row, KEPT numbers of it in every lane; the lanes talk by shuffles, there is no barrier.
// Bytes: 4·n in, 4·n out: the least there is. Operations: 1 exponential per element. Share: not yet measured.
// grid (ceil(rows / (blockDim.x / 32))), block (multiple of 32)
extern "C" __global__ void softmax_v2_warp_per_row(const float* __restrict__ x, float* __restrict__ y, int rows, int n, int logarithm) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;  // a whole warp leaves, or none of it
  const float* from = x + (long long)row * n;
  float kept[KEPT], largest = minus_infinity(), sum = 0.0f;
#pragma unroll
  for (int i = 0; i < KEPT; i++) kept[i] = lane + 32 * i < n ? from[lane + 32 * i] : minus_infinity();
#pragma unroll
  for (int i = 0; i < KEPT; i++) largest = fmaxf(largest, kept[i]);
  largest = max_lanes(largest);
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    kept[i] -= largest;
    if (lane + 32 * i < n) sum += expf(kept[i]);
  }
  sum = sum_lanes(sum);
  float log_sum = logf(sum);
#pragma unroll
  for (int i = 0; i < KEPT; i++)
    if (lane + 32 * i < n) y[(long long)row * n + lane + 32 * i] = share(kept[i], sum, log_sum, logarithm);
}

// v3, the idea: every thread keeps (largest, sum) of its numbers, which merge like the normalisers' statistics; one reading
// instead of two. Bytes: 8·n in (the second time from the L2 if it fits), 4·n out. Operations: 2 exponentials per element.
// Share of the copy rate: not yet measured.   grid (rows), block (multiple of 32)
extern "C" __global__ void softmax_v3_block_per_row_online(const float* __restrict__ x, float* __restrict__ y, int n, int logarithm) {
  __shared__ float largest[32], sums[32];
  const float* from = x + (long long)blockIdx.x * n;
  Online own = {minus_infinity(), 0.0f};
#pragma unroll 4
  for (int k = threadIdx.x; k < n; k += blockDim.x) {
    float seen = from[k];
    own = merge(own, {seen != seen ? minus_infinity() : seen, seen != seen ? seen : 1.0f});
  }
  own = merge_lanes(own);
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = own.largest, sums[threadIdx.x / 32] = own.sum;
  __syncthreads();
  own = {largest[0], sums[0]};
  for (int warp = 1; warp < blockDim.x / 32; warp++) own = merge(own, {largest[warp], sums[warp]});
  if (own.largest == __int_as_float(0x7f800000) || own.largest == minus_infinity()) own.sum = __int_as_float(0x7fffffff);  // NaN
  float log_sum = logf(own.sum);
  float* to = y + (long long)blockIdx.x * n;
  for (int k = threadIdx.x; k < n; k += blockDim.x) to[k] = share(from[k] - own.largest, own.sum, log_sum, logarithm);
}

// Cross-entropy, row by row: loss = −Σ_c q_c · log p_c, p = softmax(x), q_c = w_c · ((1 − s)·[c = label] + s/C), 0 in rows with
// label `ignored`. The weight of a row is w_label: the mean divides by their sum. A label that is no class gives NaN.
// Idea: softmax and loss never reach memory; a warp per row. Bytes: 4·C in (read twice, from the L1), 8 out per row.
// Operations: 1 exponential per element. Share of the copy rate: not yet measured.
// grid (ceil(rows / (blockDim.x / 32))), block (multiple of 32)
extern "C" __global__ void cross_entropy_rows(const float* __restrict__ x, const long long* __restrict__ labels,
                                              const float* __restrict__ w, float* __restrict__ loss, float* __restrict__ weight, int rows,
                                              int C, float smoothing, long long ignored) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float* from = x + (long long)row * C;
  float most = minus_infinity(), sum = 0.0f, smooth = 0.0f, weights = 0.0f;
  for (int c = lane; c < C; c += 32) most = fmaxf(most, from[c]);
  most = max_lanes(most);
  for (int c = lane; c < C; c += 32) {
    float below = from[c] - most, own = w ? w[c] : 1.0f;
    sum += expf(below);
    if (own != 0.0f) smooth += own * below, weights += own;  // an impossible class of weight 0 counts 0, not 0 · −∞
  }
  sum = sum_lanes(sum), smooth = sum_lanes(smooth), weights = sum_lanes(weights);
  if (lane != 0) return;
  long long label = labels[row];
  float log_sum = logf(sum), total = 0.0f, own = 0.0f;
  if (label != ignored && (label < 0 || label >= C)) {
    total = __int_as_float(0x7fffffff);
  } else if (label != ignored) {
    own = w ? w[label] : 1.0f;
    if (smoothing < 1.0f && own != 0.0f) total -= (1.0f - smoothing) * own * (from[label] - most - log_sum);
    if (smoothing > 0.0f) total -= smoothing / C * (smooth - weights * log_sum);
  }
  loss[row] = total, weight[row] = own;
}

// The sums of loss and weight over all rows, and mean = total / weights. Idea: one block, every thread its rows in order, in
// 64 bits, then a tree. It stays on the device: nobody waits for a number. Bytes: 8 per row. Share: not yet measured.
// grid (1), block (MAX_THREADS); sums[0] loss, sums[1] weight, sums[2] their quotient
extern "C" __global__ void cross_entropy_total(const float* __restrict__ loss, const float* __restrict__ weight, float* __restrict__ sums,
                                               int rows) {
  __shared__ double losses[MAX_THREADS], weights[MAX_THREADS];
  double own_loss = 0.0, own_weight = 0.0;
#pragma unroll 4
  for (int row = threadIdx.x; row < rows; row += blockDim.x) own_loss += loss[row], own_weight += weight[row];
  losses[threadIdx.x] = own_loss, weights[threadIdx.x] = own_weight;
  for (int step = 1; step < blockDim.x; step *= 2) {
    __syncthreads();
    if (threadIdx.x % (2 * step) == 0 && threadIdx.x + step < blockDim.x)
      losses[threadIdx.x] += losses[threadIdx.x + step], weights[threadIdx.x] += weights[threadIdx.x + step];
  }
  if (threadIdx.x == 0) sums[0] = (float)losses[0], sums[1] = (float)weights[0], sums[2] = (float)(losses[0] / weights[0]);
}

// grad_x = g · (p · Σ_c q_c − q), g = grad[row · grad_step] / divisor[0] (divisor null: 1). p is computed again from x.
// Idea: a warp per row. Bytes: 4·C in (read three times, the second and third from the L1), 4·C out: the least there is.
// Operations: 2 exponentials and 8 more per element. Share of the copy rate: not yet measured.   grid (ceil(rows / (blockDim.x / 32)))
extern "C" __global__ void cross_entropy_grad(const float* __restrict__ grad, const float* __restrict__ divisor,
                                              const float* __restrict__ x, const long long* __restrict__ labels,
                                              const float* __restrict__ w, float* __restrict__ grad_x, int grad_step, int rows, int C,
                                              float smoothing, long long ignored) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  long long at = (long long)row * C, label = labels[row];
  float most = minus_infinity(), sum = 0.0f, weights = 0.0f, even = smoothing / C;
  for (int c = lane; c < C; c += 32) most = fmaxf(most, x[at + c]);
  most = max_lanes(most);
  for (int c = lane; c < C; c += 32) sum += expf(x[at + c] - most), weights += w ? w[c] : 1.0f;
  sum = sum_lanes(sum), weights = sum_lanes(weights);
  bool counts = label != ignored;
  float own = !counts || label < 0 || label >= C ? 0.0f : w ? w[label] : 1.0f, q_sum = (1.0f - smoothing) * own + even * weights;
  float g = grad[(long long)row * grad_step] / (divisor ? divisor[0] : 1.0f);
  for (int c = lane; c < C; c += 32) {
    float q = (w ? w[c] : 1.0f) * (even + (c == label ? 1.0f - smoothing : 0.0f));
    grad_x[at + c] = counts ? g * (expf(x[at + c] - most) / sum * q_sum - q) : 0.0f;
  }
}
