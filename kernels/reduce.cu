// Reductions: sums, and the largest or smallest number with its position. x is (outer, n, inner) as it lies in memory; the n
// numbers of each (outer, inner) become one.
//
//     ..._v1_thread_per_output    any shape: a thread takes its n numbers in order. Right for many results and small n
//     ..._v2_rows                 inner = 1: a block per part of a row, a warp reads neighbours
//     ..._v2_columns              inner > 1: TX columns and TY rows a block, a warp reads along inner
//
// v2 cuts n into T parts, by shape alone, and leaves one number per part, (outer, T, inner); v1 then reduces the T. Everything
// is merged in a fixed order: same input, same bits. No atomics, which would save the second launch and lose that.
//
// Rules: a NaN is the largest and the smallest of all; of equal numbers the first counts, of several NaN too.
#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif

// A sum in 64 bits: 10⁹ numbers later it still has 32 right ones.
struct Sum {
  double value;
  static __device__ __forceinline__ Sum nothing() { return {0.0}; }
  __device__ __forceinline__ void take(float x) { value += x; }
};

// The largest (sign 1) or smallest (sign −1) number and where it was.
struct Extreme {
  float value;
  int index;
  static __device__ __forceinline__ Extreme nothing() { return {0.0f, -1}; }  // −1: nothing seen yet
  __device__ __forceinline__ void take(float x, int at, int sign) {
    bool further = sign > 0 ? x > value : x < value;
    if (index < 0 || further || (x != x && value == value)) value = x, index = at;
  }
  __device__ __forceinline__ void merge(const Extreme& other, int sign) {  // positions decide between equals: order does not matter
    if (other.index < 0) return;
    bool nan = value != value, other_nan = other.value != other.value;
    bool same = value == other.value || (nan && other_nan), further = sign > 0 ? other.value > value : other.value < value;
    if (index < 0 || (same ? other.index < index : other_nan || (!nan && further))) *this = other;
  }
};

// The threads of a block that share a result merge in a fixed tree over y; the first of them holds it afterwards.
// Sums lie in `values`, extremes in both arrays.
__device__ __forceinline__ void merge_threads(Sum& own, double* values) {
  int TX = blockDim.x, TY = blockDim.y, at = threadIdx.y * TX + threadIdx.x;
  values[at] = own.value;
  for (int step = 1; step < TY; step *= 2) {
    __syncthreads();
    if (threadIdx.y % (2 * step) == 0 && threadIdx.y + step < TY) values[at] = own.value += values[at + step * TX];
  }
}

__device__ __forceinline__ void merge_threads(Extreme& own, float* values, int* indices, int sign) {
  int TX = blockDim.x, TY = blockDim.y, at = threadIdx.y * TX + threadIdx.x;
  values[at] = own.value, indices[at] = own.index;
  for (int step = 1; step < TY; step *= 2) {
    __syncthreads();
    if (threadIdx.y % (2 * step) == 0 && threadIdx.y + step < TY) {
      own.merge({values[at + step * TX], indices[at + step * TX]}, sign);
      values[at] = own.value, indices[at] = own.index;
    }
  }
}

// v1, the idea: one thread, n numbers in order. Bytes: 4 per number in, 4 per result out. Operations: 1 per number.
// Share of the copy rate: not yet measured.   grid (ceil(results / blockDim.x)), results = outer · inner
extern "C" __global__ void sum_v1_thread_per_output(const float* __restrict__ x, float* __restrict__ y, double scale, long long results,
                                                    int n, long long inner) {
  long long result = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (result >= results) return;
  const float* from = x + result / inner * n * inner + result % inner;
  Sum own = Sum::nothing();
#pragma unroll 4
  for (int k = 0; k < n; k++) own.take(from[k * inner]);
  y[result] = (float)(own.value * scale);
}

// v2, rows, the idea: a block takes one part of one row, thread k every TY-th number of it; then a tree.
// Bytes: 4 per number in. Operations: 1 per number. Share of the copy rate: not yet measured.   grid (outer, T), block (1, TY)
extern "C" __global__ void sum_v2_rows(const float* __restrict__ x, float* __restrict__ y, double scale, int n, int n_of_part) {
  __shared__ double values[MAX_THREADS];
  int first = blockIdx.y * n_of_part, last = first + n_of_part < n ? first + n_of_part : n;
  const float* row = x + (long long)blockIdx.x * n;
  Sum own = Sum::nothing();
#pragma unroll 4
  for (int k = first + threadIdx.y; k < last; k += blockDim.y) own.take(row[k]);
  merge_threads(own, values);
  if (threadIdx.y == 0) y[(long long)blockIdx.x * gridDim.y + blockIdx.y] = (float)(own.value * scale);
}

// v2, columns, the idea: TX neighbouring columns and TY rows a block. Bytes: 4 per number in. Operations: 1 per number.
// Share of the copy rate: not yet measured.   grid (ceil(inner / TX), T, outer), block (TX, TY)
extern "C" __global__ void sum_v2_columns(const float* __restrict__ x, float* __restrict__ y, double scale, int n, int inner,
                                          int n_of_part) {
  __shared__ double values[MAX_THREADS];
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int first = blockIdx.y * n_of_part, last = first + n_of_part < n ? first + n_of_part : n;
  Sum own = Sum::nothing();
  if (column < inner)
#pragma unroll 4
    for (int k = first + threadIdx.y; k < last; k += blockDim.y) own.take(x[((long long)blockIdx.z * n + k) * inner + column]);
  merge_threads(own, values);
  if (threadIdx.y == 0 && column < inner)
    y[((long long)blockIdx.z * gridDim.y + blockIdx.y) * inner + column] = (float)(own.value * scale);
}

// The same three for extremes. `found` holds positions that earlier parts found (null: they are 0 to n − 1); y or positions may
// be null.
//
// v1, the idea: one thread, n numbers in order, the first of equals stays.
// Bytes: 4 per number in, up to 8 per result out. Operations: 4 per number. Share of the copy rate: not yet measured.
extern "C" __global__ void extreme_v1_thread_per_output(const float* __restrict__ x, const int* __restrict__ found, float* __restrict__ y,
                                                        int* __restrict__ positions, int sign, long long results, int n, long long inner) {
  long long result = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (result >= results) return;
  long long at = result / inner * n * inner + result % inner;
  Extreme own = Extreme::nothing();
  for (int k = 0; k < n; k++) own.take(x[at + k * inner], found ? found[at + k * inner] : k, sign);  // parts come in order
  if (y) y[result] = own.value;
  if (positions) positions[result] = own.index;
}

// v2, rows, the idea: as for sums, with positions: of equals the smaller one, so that the order of merging does not matter.
// Bytes: 4 per number in. Operations: 4 per number. Share of the copy rate: not yet measured.
extern "C" __global__ void extreme_v2_rows(const float* __restrict__ x, float* __restrict__ y, int* __restrict__ positions, int sign, int n,
                                           int n_of_part) {
  __shared__ float values[MAX_THREADS];
  __shared__ int indices[MAX_THREADS];
  int first = blockIdx.y * n_of_part, last = first + n_of_part < n ? first + n_of_part : n;
  const float* row = x + (long long)blockIdx.x * n;
  Extreme own = Extreme::nothing();
#pragma unroll 4
  for (int k = first + threadIdx.y; k < last; k += blockDim.y) own.take(row[k], k, sign);
  merge_threads(own, values, indices, sign);
  if (threadIdx.y != 0) return;
  long long to = (long long)blockIdx.x * gridDim.y + blockIdx.y;
  if (y) y[to] = own.value;
  if (positions) positions[to] = own.index;
}

// v2, columns, the idea: TX neighbouring columns and TY rows a block, with positions.
// Bytes: 4 per number in. Operations: 4 per number. Share of the copy rate: not yet measured.
extern "C" __global__ void extreme_v2_columns(const float* __restrict__ x, float* __restrict__ y, int* __restrict__ positions, int sign,
                                              int n, int inner, int n_of_part) {
  __shared__ float values[MAX_THREADS];
  __shared__ int indices[MAX_THREADS];
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int first = blockIdx.y * n_of_part, last = first + n_of_part < n ? first + n_of_part : n;
  Extreme own = Extreme::nothing();
  if (column < inner)
#pragma unroll 4
    for (int k = first + threadIdx.y; k < last; k += blockDim.y) own.take(x[((long long)blockIdx.z * n + k) * inner + column], k, sign);
  merge_threads(own, values, indices, sign);
  if (threadIdx.y != 0 || column >= inner) return;
  long long to = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * inner + column;
  if (y) y[to] = own.value;
  if (positions) positions[to] = own.index;
}
