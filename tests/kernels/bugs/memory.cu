// memory.cu: kernels that touch what is not theirs. Each is an exercise, as in barriers.cu.

// One thread too many passes the guard.
extern "C" __global__ void off_by_one(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
  if (i < n) y[i] = 2.f * x[i];
#else
  if (i <= n) y[i] = 2.f * x[i];  // REPORT off_by_one: out of bounds
#endif
}

// A 16-byte load must begin at an address that 16 divides; x + t does so for every fourth t.
extern "C" __global__ void misaligned_vector(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  y[t] = x[t] + x[t + 3];
#else
  const float4 v = *reinterpret_cast<const float4*>(x + t);  // REPORT misaligned_vector: misaligned
  y[t] = v.x + v.w;
#endif
}

// All blocks add into the same elements, and nothing orders blocks.
extern "C" __global__ void two_blocks(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  y[blockIdx.x * n + t] += x[blockIdx.x * n + t];
#else
  y[t] += x[blockIdx.x * n + t];  // REPORT two_blocks: race
#endif
}

// All blocks read what the last one writes. It has read it itself, but the others may still be about to.
extern "C" __global__ void read_by_all_blocks(const float* x, float* y, int n) {
  const int t = threadIdx.x, block = blockIdx.x;
#ifdef FIXED
  const float before = 0.f;
#else
  const float before = t == n - 1 ? y[4 * n] : 0.f;
#endif
  y[block * n + t] = x[block * n + t] + before;
  if (block == 3 && t == n - 1) y[4 * n] = 1.f + before;  // REPORT read_by_all_blocks: race
}

// The tile is filled as far as the data goes, and read as far as the tile goes.
extern "C" __global__ void uninitialised_tile(const float* x, float* y, int n) {
  __shared__ float s[256];
  const int t = threadIdx.x;
#ifdef FIXED
  s[t] = t < n ? x[t] : 0.f;
#else
  if (t < n) s[t] = x[t];
#endif
  __syncthreads();
  y[t] = s[t ^ 1];  // REPORT uninitialised_tile: uninitialised
}

// The launch gives one float too few.
extern "C" __global__ void shared_too_small(const float* x, float* y, int n) {
  extern __shared__ float s[];
  const int t = threadIdx.x;
#ifdef FIXED
  if (t < n - 1)
#endif
  s[t] = x[t];  // REPORT shared_too_small: out of bounds
}

// Row 16 of 16.
extern "C" __global__ void one_row_too_many(const float* x, float* y, int n) {
  __shared__ float s[16][16];
  const int t = threadIdx.x;
#ifdef FIXED
  const int row = t % 16;
#else
  const int row = t % 16 + 1;
#endif
  s[row][t / 16] = x[t];  // REPORT one_row_too_many: index
  __syncthreads();
  y[t] = s[row][t / 16];
}

// The input is written through a cast.
extern "C" __global__ void input_written(const float* x, float* y, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  y[t] = x[t] * 2.f;
#else
  const_cast<float*>(x)[t] *= 2.f;  // REPORT input_written: read-only
  y[t] = x[t];
#endif
}

// row * stride leaves the whole numbers of an int long before the array ends.
extern "C" __global__ void index_overflow(const float* x, float* y, int n) {
  const int row = threadIdx.x, stride = 1 << 30;
#ifdef FIXED
  const long long at = (long long)row * stride;
#else
  const long long at = row * stride;  // REPORT index_overflow: overflow
#endif
  if (at < n) y[row] = x[at];
}

// Counting in a histogram: read, add and write are three steps, and two threads do them at once.
extern "C" __global__ void plain_histogram(const int* bin, int* count, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  if (t < n) atomicAdd(&count[bin[t]], 1);
#else
  if (t < n) count[bin[t]] += 1;  // REPORT plain_histogram: race
#endif
}

// Each element becomes the sum of itself and its neighbour, in place: the neighbour may be done already.
extern "C" __global__ void stencil_in_place(float* x, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  const float next = t + 1 < n ? x[t + 1] : 0.f;
  __syncthreads();
  x[t] += next;
#else
  if (t + 1 < n) x[t] += x[t + 1];  // REPORT stencil_in_place: race
#endif
}

// A mean over a count that may be nought.
extern "C" __global__ void empty_mean(const int* total, const int* count, int* mean, int n) {
  const int t = threadIdx.x;
#ifdef FIXED
  if (t < n) mean[t] = count[t] ? total[t] / count[t] : 0;
#else
  if (t < n) mean[t] = total[t] / count[t];  // REPORT empty_mean: arithmetic
#endif
}

// Sound, though it looks dangerous: neighbouring bytes of one word belong to different threads.
extern "C" __global__ void bytes_side_by_side(const float* x, unsigned char* positive, int n) {
  __shared__ unsigned char s[256];
  const int t = threadIdx.x;
  s[t] = x[t] > 0.f;
  __syncthreads();
  positive[t] = s[t ^ 1];
}
