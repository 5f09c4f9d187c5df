// runner.cu: small sound kernels (and a few that fail on purpose) for test_runner.py.
#ifndef TILE
#define TILE 16
#endif

extern "C" __global__ void __launch_bounds__(TILE * TILE)
product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int M, int N, int K) {
  __shared__ float as[TILE][TILE], bs[TILE][TILE];
  const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
  float sum = 0.f;
  for (int k0 = 0; k0 < K; k0 += TILE) {
    as[y][x] = row < M && k0 + x < K ? __ldg(a + row * K + k0 + x) : 0.f;
    bs[y][x] = column < N && k0 + y < K ? __ldg(b + (k0 + y) * N + column) : 0.f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE; k++) sum += as[y][k] * bs[k][x];
    __syncthreads();
  }
  if (row < M && column < N) c[row * N + column] = sum;
}

extern "C" __global__ void indices(int* out) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int* to = out + (block * blockDim.x * blockDim.y * blockDim.z + thread) * 6;
  to[0] = blockIdx.z; to[1] = blockIdx.y; to[2] = blockIdx.x;
  to[3] = threadIdx.z; to[4] = threadIdx.y; to[5] = threadIdx.x;
}

extern "C" __global__ void shuffles(const float* x, float* out, int by, int width) {
  const int t = threadIdx.x, n = blockDim.x;
  const double v = x[t];                                       // 8 bytes, to try both sizes
  out[t] = (float)__shfl_sync(0xffffffffu, v, by, width);
  out[n + t] = __shfl_down_sync(0xffffffffu, x[t], by, width);
  out[2 * n + t] = __shfl_up_sync(0xffffffffu, x[t], by, width);
  out[3 * n + t] = __shfl_xor_sync(0xffffffffu, x[t], by, width);
}

extern "C" __global__ void votes(const int* x, unsigned* out, int* count) {
  const int t = threadIdx.x, n = blockDim.x;
  out[t] = __ballot_sync(0xffffffffu, x[t]);
  out[n + t] = __any_sync(0xffffffffu, x[t]);
  out[2 * n + t] = __all_sync(0xffffffffu, x[t]);
  atomicAdd(&count[0], x[t]);
  atomicMax(&count[1], t);
  atomicMin(&count[2], t);
  atomicSub(&count[3], 1);
}

extern "C" __global__ void one_mma(const float* a, const float* b, const float* c, float* d) {
  const int lane = threadIdx.x;
  unsigned af[4], bf[2];
  float cf[4], df[4];
  for (int i = 0; i < 4; i++) { af[i] = cpu_to_tf32(a[lane * 4 + i]); cf[i] = c[lane * 4 + i]; }
  for (int i = 0; i < 2; i++) bf[i] = cpu_to_tf32(b[lane * 2 + i]);
  cpu_mma_m16n8k8_tf32(df, af, bf, cf);
  for (int i = 0; i < 4; i++) d[lane * 4 + i] = df[i];
}

extern "C" __global__ void rounded(const float* x, float* y) { y[threadIdx.x] = __uint_as_float(cpu_to_tf32(x[threadIdx.x])); }

extern "C" __global__ void load_matrix(const unsigned* x, unsigned* out) {
  __shared__ __align__(16) unsigned rows[32][4];
  const int lane = threadIdx.x;
  for (int i = 0; i < 4; i++) rows[lane][i] = x[lane * 4 + i];
  __syncwarp();
  unsigned registers[4];
  cpu_ldmatrix_x4(registers, rows[lane]);
  for (int i = 0; i < 4; i++) out[lane * 4 + i] = registers[i];
}

extern "C" __global__ void copies(const float* x, float* out, int valid) {
  __shared__ __align__(16) float tile[16][4];
  const int t = threadIdx.x;
  cpu_copy_async(tile[t], x + 4 * t, 16, t < valid ? 16 : 0);
  cpu_copy_commit();
#ifndef __SANITIZE_THREAD__
  for (int i = 0; i < 4; i++) out[4 * t + i] = tile[t][i];     // too early: it is not there
#endif
  cpu_copy_wait(0);
  __syncthreads();
  for (int i = 0; i < 4; i++) out[64 + 4 * t + i] = tile[t][i];
}

extern "C" __global__ void scale(float* x, float by, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= by;  // scaled
}

extern "C" __global__ void unwritten(float* y) {
  extern __shared__ float s[];
  __shared__ float fixed[32];
  if (blockIdx.x == 0) y[threadIdx.x] = s[threadIdx.x] + fixed[threadIdx.x];
}

extern "C" __global__ void add_into(const float* x, float* y, int n) {
  const int t = threadIdx.x;
  const float mine = y[t] + 0.f * x[t];
  __syncthreads();
  if (t < n) y[t] = mine + 1000.f;
}

extern "C" __global__ void __launch_bounds__(64 * 2, 2) bounded(float* x) { x[0] = 1.f; }

extern "C" __global__ void far_away(float* x, long long where) {
  if (threadIdx.x == 3) x[where] = 1.f;  // far away
}

__device__ __noinline__ float deeper(float* x, int n) {
  volatile float room[64];
  room[n % 64] = x[0];
  return n > 0 ? deeper(x, n - 1) + room[n % 64] : 0.f;
}
extern "C" __global__ void deep(float* x, int n) { x[1] = deeper(x, n); }

extern "C" __global__ void asserting(int n) {
  const int t = threadIdx.x;
  assert(t != n);
}

extern "C" __global__ void endless(int* x) {
  volatile int* p = x;
  while (*p == 0) {}
}

__device__ __forceinline__ void helper(float* x, int i) { x[i] = 1.f; }
extern "C" __global__ void through_a_helper(float* x) {
  helper(x, threadIdx.x);  // the caller
}
