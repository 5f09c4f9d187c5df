// program.cu: runs a random program of shared-memory accesses and barriers, for test_races.py. Every thread does the same steps
// in the same order; what differs is where each one reads and writes, and which lanes a __syncwarp gathers.

// steps (S, 2 + threads): what to do (0 read, 1 write, 2 __syncthreads, 3 __syncwarp, 4 shuffle), unused, then per thread the
// place to touch (-1: none) or the mask.
extern "C" __global__ void program(const int* steps, int count, int* result) {
  __shared__ int place[16];
  const int t = threadIdx.x, width = blockDim.x + 2;
  int sum = 0;
  for (int s = 0; s < count; s++) {
    const int what = steps[s * width], at = steps[s * width + 2 + t];
    if (what == 0) {
      if (at >= 0) sum += place[at];
    } else if (what == 1) {
      if (at >= 0) place[at] = t;
    } else if (what == 2) {
      __syncthreads();
    } else if (what == 3) {
      __syncwarp((unsigned)at);
    } else {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    }
  }
  result[t] = sum;
}
