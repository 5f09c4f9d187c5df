// warps.cu: kernels whose lanes misunderstand each other. Each is an exercise, as in barriers.cu.

// The mask names all 32 lanes, and 16 of them are elsewhere.
extern "C" __global__ void shuffle_in_branch(const float* x, float* y, int n) {
  const int t = threadIdx.x;
  float v = x[t];
#ifdef FIXED
  const float other = __shfl_down_sync(0xffffffffu, v, 8);
  if (t % 32 < 16) v += other;
#else
  if (t % 32 < 16) v += __shfl_down_sync(0xffffffffu, v, 8);  // REPORT shuffle_in_branch: warp
#endif
  y[t] = v;
}

// Lanes 16 to 31 call with the mask of lanes 0 to 15.
extern "C" __global__ void wrong_mask(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  const unsigned mask = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
#else
  const unsigned mask = 0x0000ffffu;
#endif
  y[t] = x[t] + __shfl_xor_sync(mask, x[t], 1);  // REPORT wrong_mask: warp
}

// A lane that has returned cannot take part.
extern "C" __global__ void lane_gone(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  float v = t < n ? x[t] : 0.f;
#else
  if (t >= n) return;
  float v = x[t];
#endif
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);  // REPORT lane_gone: warp
  if (t == 0) y[0] = v;
}

// The end of a sum within one warp: lanes have not run in lockstep since 2017.
extern "C" __global__ void missing_syncwarp(const float* x, float* y, int n) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  s[t] = x[t];
  s[t + 32] = x[t + 32];
  for (int half = 32; half; half /= 2) {
#ifdef FIXED
    __syncwarp();
#endif
    float v = 0.f;
    if (t < half) v = s[t] + s[t + half];  // REPORT missing_syncwarp: race
#ifdef FIXED
    __syncwarp();
#endif
    if (t < half) s[t] = v;
  }
  if (t == 0) y[0] = s[0];
}

// A shuffle brings lanes together, but it is no fence: what was written to memory before it need not be there after it.
extern "C" __global__ void shuffle_is_no_fence(const float* x, float* y, int n) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = x[t];
  const float biggest = fmaxf(x[t], __shfl_xor_sync(0xffffffffu, x[t], 1));
#ifdef FIXED
  __syncwarp();
#endif
  y[t] = s[31 - t] + 0.f * biggest;  // REPORT shuffle_is_no_fence: race
}

// Each half of the warp waits for itself alone, and reads what the other half wrote.
extern "C" __global__ void half_a_syncwarp(const float* x, float* y, int n) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = x[t];
#ifdef FIXED
  __syncwarp();
#else
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);
#endif
  y[t] = s[31 - t];  // REPORT half_a_syncwarp: race
}

// Two warps, and a barrier that reaches only one.
extern "C" __global__ void syncwarp_for_a_block(const float* x, float* y, int n) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  s[t] = x[t];
#ifdef FIXED
  __syncthreads();
#else
  __syncwarp();
#endif
  y[t] = s[63 - t];  // REPORT syncwarp_for_a_block: race
}
