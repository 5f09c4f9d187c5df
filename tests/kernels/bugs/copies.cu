// copies.cu: tiles that arrive while the block computes (cp.async), and what goes wrong then. Each is an exercise, as in
// barriers.cu. y[t] = sum over tiles of x[tile][t ^ 1], from two buffers that take turns.
#ifndef MINIDL_ON_CPU
#error "the exercises run on the CPU"
#endif
#define start_copy(to, from) cpu_copy_async(to, from, 4, 4)
#define close_group() cpu_copy_commit()
#define wait_for_groups(left) cpu_copy_wait(left)

// BUG 1: nobody waits. BUG 2: waits for all groups but two, where there are two. BUG 3: the barrier after the wait is missing.
// BUG 4: the next tile goes into the buffer that is being read. BUG 5: no barrier after reading.
template <int BUG>
__device__ __forceinline__ void sum_of_tiles(const float* x, float* y, int n, int tiles) {
  __shared__ float buffer[2][64];
  const int t = threadIdx.x;
  float sum = 0.f;
  start_copy(&buffer[0][t], x + t);
  close_group();
  for (int tile = 0; tile < tiles; tile++) {
    const int next = BUG == 4 ? tile % 2 : (tile + 1) % 2;
    if (BUG == 4) { wait_for_groups(0); __syncthreads(); }
    if (tile + 1 < tiles) start_copy(&buffer[next][t], x + (tile + 1) * n + t);  // REPORT no_second_barrier: in flight
    close_group();
    if (BUG == 2) wait_for_groups(2);
    else if (BUG != 1) wait_for_groups(1);
    if (BUG != 3) __syncthreads();
    if (BUG == 1) sum += buffer[tile % 2][t ^ 1];       // REPORT no_wait: in flight
    else if (BUG == 2) sum += buffer[tile % 2][t ^ 1];  // REPORT too_short_a_wait: in flight
    else if (BUG == 4) sum += buffer[tile % 2][t ^ 1];  // REPORT stale_buffer: in flight
    else sum += buffer[tile % 2][t ^ 1];                // REPORT no_barrier_after_wait: race
    if (BUG != 5) __syncthreads();
  }
  y[t] = sum;
}

#ifdef FIXED
#define BUG(number) 0
#else
#define BUG(number) number
#endif

extern "C" __global__ void no_wait(const float* x, float* y, int n, int tiles) { sum_of_tiles<BUG(1)>(x, y, n, tiles); }
extern "C" __global__ void too_short_a_wait(const float* x, float* y, int n, int tiles) { sum_of_tiles<BUG(2)>(x, y, n, tiles); }
extern "C" __global__ void no_barrier_after_wait(const float* x, float* y, int n, int tiles) { sum_of_tiles<BUG(3)>(x, y, n, tiles); }
extern "C" __global__ void stale_buffer(const float* x, float* y, int n, int tiles) { sum_of_tiles<BUG(4)>(x, y, n, tiles); }
extern "C" __global__ void no_second_barrier(const float* x, float* y, int n, int tiles) { sum_of_tiles<BUG(5)>(x, y, n, tiles); }
