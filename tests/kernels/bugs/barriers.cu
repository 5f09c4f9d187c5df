// barriers.cu: kernels whose threads do not wait for each other as they should. Each is an exercise: run it in check mode, find the
// bug, mend it; -DFIXED shows one answer. `// REPORT kind` marks the line that check mode must name.

#define T 16

// C = A · B, one thread per output, tiles through shared memory. BUG 1: no barrier between filling and reading the tiles.
// BUG 2: none before they are filled again. BUG 3: the ragged end of k is not guarded. BUG 4: a row too many is written.
template <int BUG>
__device__ __forceinline__ void tile_product(const float* A, const float* B, float* C, int M, int N, int K) {
  __shared__ float as[T][T], bs[T][T];
  const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * T + y, column = blockIdx.x * T + x;
  float sum = 0.f;
  for (int k0 = 0; k0 < K; k0 += T) {
    const bool inside = BUG == 3 || k0 + x < K;
    if (BUG == 2) as[y][x] = row < M && inside ? A[row * K + k0 + x] : 0.f;  // REPORT missing_second_barrier: race
    else as[y][x] = row < M && inside ? A[row * K + k0 + x] : 0.f;           // REPORT ragged_depth: out of bounds
    bs[y][x] = column < N && k0 + y < K ? B[(k0 + y) * N + column] : 0.f;
    if (BUG != 1) __syncthreads();
    for (int k = 0; k < T; k++) sum += as[y][k] * bs[k][x];                  // REPORT missing_barrier: race
    if (BUG != 2) __syncthreads();
  }
  if (row < M + (BUG == 4) && column < N) C[row * N + column] = sum;         // REPORT ragged_row: out of bounds
}

#ifdef FIXED
#define BUG(number) 0
#else
#define BUG(number) number
#endif

extern "C" __global__ void missing_barrier(const float* A, const float* B, float* C, int M, int N, int K) {
  tile_product<BUG(1)>(A, B, C, M, N, K);
}
extern "C" __global__ void missing_second_barrier(const float* A, const float* B, float* C, int M, int N, int K) {
  tile_product<BUG(2)>(A, B, C, M, N, K);
}
extern "C" __global__ void ragged_depth(const float* A, const float* B, float* C, int M, int N, int K) {
  tile_product<BUG(3)>(A, B, C, M, N, K);
}
extern "C" __global__ void ragged_row(const float* A, const float* B, float* C, int M, int N, int K) {
  tile_product<BUG(4)>(A, B, C, M, N, K);
}

// y = x backwards, through shared memory. Half of the block never comes to the barrier.
extern "C" __global__ void divergent_barrier(const float* x, float* y, int n) {
  __shared__ float s[256];
  const int t = threadIdx.x;
  s[t] = x[t];
#ifdef FIXED
  __syncthreads();
  y[t] = s[n - 1 - t];
#else
  if (t < 128) {
    __syncthreads();  // REPORT divergent_barrier: divergent barrier
    y[t] = s[n - 1 - t];
  } else {
    y[t] = s[t];
  }
#endif
}

// Threads beyond the edge go home before the others meet.
extern "C" __global__ void early_return(const float* x, float* y, int n) {
  __shared__ float s[256];
  const int t = threadIdx.x;
#ifdef FIXED
  if (t < n) s[t] = x[t];
  __syncthreads();
  if (t < n) y[t] = s[n - 1 - t];
#else
  if (t >= n) return;
  s[t] = x[t];
  __syncthreads();  // REPORT early_return: divergent barrier
  y[t] = s[n - 1 - t];
#endif
}

// Two barriers in two branches are two barriers, even if everybody comes to one of them.
extern "C" __global__ void two_barriers(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  __syncthreads();
#else
  if (t < 64)
    __syncthreads();
  else
    __syncthreads();  // REPORT two_barriers: divergent barrier
#endif
  if (t < n) y[t] = x[t];
}

// The sum of the block, twice, with one scratch array: the second round writes it while the first is still read.
extern "C" __global__ void scratch_reused(const float* x, float* y, int n) {
  __shared__ float part[8];
  const int t = threadIdx.x;
  for (int round = 0; round < 2; round++) {
    float v = x[t + round * n];
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
#ifdef FIXED
    __syncthreads();
#endif
    if (t % 32 == 0) part[t / 32] = v;  // REPORT scratch_reused: race
    __syncthreads();
    float sum = 0.f;
    for (int i = 0; i < 8; i++) sum += part[i];
    if (t == 0) y[round] = sum;
  }
}

// Threads of one block exchange values through global memory: that needs a barrier too.
extern "C" __global__ void through_global(const float* x, float* y, float* scratch, int n) {
  const int t = threadIdx.x;
  scratch[t] = 2.f * x[t];
#ifdef FIXED
  __syncthreads();
#endif
  y[t] = scratch[n - 1 - t];  // REPORT through_global: race
}
