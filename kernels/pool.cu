// Pooling of channels-last images: the largest or the mean of every window, fixed or adaptive, and the gradients.
//
// One thread computes WIDTH neighbouring channels of one output pixel; neighbouring threads have neighbouring channels, so a
// warp reads whole sectors for every cell of its window. Windows that overlap are read again, from the L1 and L2.
//     ..._v1_thread_per_output   one channel a thread: any C
//     ..._v2_float4              four channels a thread, 16 bytes a load: C % 4 = 0, a quarter of the instructions and index arithmetic
//
// Gradients are gathered, not scattered: a pixel looks into every window that could have taken it, p and q upwards. So no
// atomics, and the sums are those of the plain loops, bit for bit.
//
// Rules (the same as in minidl/backend/generic/pool.py): ties go to the first pixel in reading order, a NaN wins over all, the
// last NaN if there are several, padding never wins.
//
// grid (ceil(pixels · C / WIDTH / blockDim.x)); the pixels of y forward, those of x backward.
#include "pack.cuh"

// One axis of the windows: a kernel of `kernel` cells, or (kernel = 0) adaptive windows that cut `size` into `places`.
struct Axis {
  int size, places, kernel, stride, pad, dilation;

  __device__ __forceinline__ int start(int p) const { return kernel ? p * stride - pad : p * size / places; }
  __device__ __forceinline__ int step() const { return kernel ? dilation : 1; }
  __device__ __forceinline__ int first(int p) const {  // the first cell that is in the image
    int h = start(p), d = step();
    return h >= 0 ? h : h + (-h + d - 1) / d * d;
  }
  __device__ __forceinline__ int last(int p) const {  // one past the last cell that is in the image
    int h = kernel ? start(p) + (kernel - 1) * dilation + 1 : ((p + 1) * size + places - 1) / places;
    return h < size ? h : size;
  }
  // How many cells average pooling counts: in the image, or in the image and its padding.
  __device__ __forceinline__ int cells(int p, int count_include_pad) const {
    if (!kernel) return last(p) - start(p);
    int edge = count_include_pad ? pad : 0, from = start(p), to = from + kernel;
    return (to < size + edge ? to : size + edge) - (from > -edge ? from : -edge);
  }
  // The windows that may hold pixel h: from `lowest` to `highest`.
  __device__ __forceinline__ int lowest(int h) const {
    if (!kernel) return h * places / size;
    int reach = h + pad - (kernel - 1) * dilation;
    return reach > 0 ? (reach + stride - 1) / stride : 0;
  }
  __device__ __forceinline__ int highest(int h) const {
    int p = kernel ? (h + pad) / stride : ((h + 1) * places + size - 1) / size - 1;
    return p < places ? p : places - 1;
  }
};

// Which channels of which pixel a thread has: pixels are numbered n, row, column. In 32 bits, because dividing 64-bit numbers
// takes a hundred instructions: the launcher refuses images of 2³¹ numbers and more.
struct Place {
  int c, column, row, image;
  long long at;  // where its number lies: pixel · C + c

  __device__ __forceinline__ Place(int C, int rows, int columns, int width) {
    unsigned thread = blockIdx.x * blockDim.x + threadIdx.x, packs = C / width, pixel = thread / packs, line = pixel / columns;
    c = (thread - pixel * packs) * width, at = (long long)pixel * C + c;
    column = pixel - line * columns, image = line / rows, row = line - image * rows;
  }
};

// Idea: the window's cells in reading order, the best so far and where it was. Bytes: 4·(x + y) + 4·y for the positions.
// Operations: 2 comparisons per cell. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void max_pool(const float* __restrict__ x, float* __restrict__ y, int* __restrict__ indices, int N, int C,
                                         const Axis& rows, const Axis& columns) {
  Place place(C, rows.places, columns.places, WIDTH);
  if (place.image >= N) return;  // ragged edge: the last block
  const float* image = x + (long long)place.image * rows.size * columns.size * C + place.c;
  Pack<WIDTH> best = same_pack<WIDTH>(0.0f);
  int where[WIDTH];
  for (int k = 0; k < WIDTH; k++) where[k] = -1;  // no pixel seen yet
  int top = rows.first(place.row), bottom = rows.last(place.row), left = columns.first(place.column), right = columns.last(place.column);
  for (int h = top; h < bottom; h += rows.step())
    for (int w = left; w < right; w += columns.step()) {
      int index = h * columns.size + w;
      Pack<WIDTH> seen = load_pack<WIDTH>(image + (long long)index * C);
#pragma unroll
      for (int k = 0; k < WIDTH; k++)
        if (seen.v[k] > best.v[k] || seen.v[k] != seen.v[k] || where[k] < 0) best.v[k] = seen.v[k], where[k] = index;
    }
  store_pack<WIDTH>(y + place.at, best);
  for (int k = 0; k < WIDTH; k++) indices[place.at + k] = where[k];
}

// v1, the idea: a thread per channel of an output pixel goes over its window.
// Bytes: 4·x in, 8·y out. Operations: 2 comparisons per cell. Share of the copy rate: not yet measured.
extern "C" __global__ void max_pool2d_v1_thread_per_output(const float* __restrict__ x, float* __restrict__ y, int* __restrict__ indices,
                                                           int N, int C, int H, int W, int OH, int OW, int KH, int KW, int stride_h,
                                                           int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w) {
  max_pool<1>(x, y, indices, N, C, {H, OH, KH, stride_h, pad_h, dilation_h}, {W, OW, KW, stride_w, pad_w, dilation_w});
}

// v2, the idea: four channels a thread, 16 bytes a load: a quarter of the index arithmetic.
// Bytes: 4·x in, 8·y out. Operations: 2 comparisons per cell. Share of the copy rate: not yet measured.
extern "C" __global__ void max_pool2d_v2_float4(const float* __restrict__ x, float* __restrict__ y, int* __restrict__ indices, int N, int C,
                                                int H, int W, int OH, int OW, int KH, int KW, int stride_h, int stride_w, int pad_h,
                                                int pad_w, int dilation_h, int dilation_w) {
  max_pool<4>(x, y, indices, N, C, {H, OH, KH, stride_h, pad_h, dilation_h}, {W, OW, KW, stride_w, pad_w, dilation_w});
}

// Idea: a pixel adds up grad_y of the windows that name it as their winner. Bytes: 8·y + 4·x (positions and grad_y are read once
// from memory, ⌈K/s⌉² times from the caches). Operations: 2 per pixel and window. Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void max_pool_grad(const float* __restrict__ grad_y, const int* __restrict__ indices, float* __restrict__ grad_x,
                                              int N, int C, const Axis& rows, const Axis& columns) {
  Place place(C, rows.size, columns.size, WIDTH);
  if (place.image >= N) return;
  int own = place.row * columns.size + place.column;
  Pack<WIDTH> sum = same_pack<WIDTH>(0.0f);
  int bottom = rows.highest(place.row), right = columns.highest(place.column), left = columns.lowest(place.column);
  for (int p = rows.lowest(place.row); p <= bottom; p++)
    for (int q = left; q <= right; q++) {
      long long from = (((long long)place.image * rows.places + p) * columns.places + q) * C + place.c;
      Pack<WIDTH> grad = load_pack<WIDTH>(grad_y + from);
#pragma unroll
      for (int k = 0; k < WIDTH; k++)
        if (indices[from + k] == own) sum.v[k] += grad.v[k];
    }
  store_pack<WIDTH>(grad_x + place.at, sum);
}

// v1, the idea: a thread per channel of a pixel asks every window that holds it who won.
// Bytes: 8·y in, 4·x out. Operations: 2 per pixel and window. Share of the copy rate: not yet measured.
extern "C" __global__ void max_pool2d_grad_x_v1_thread_per_pixel(const float* __restrict__ grad_y, const int* __restrict__ indices,
                                                                 float* __restrict__ grad_x, int N, int C, int H, int W, int OH, int OW,
                                                                 int KH, int KW, int stride_h, int stride_w, int pad_h, int pad_w,
                                                                 int dilation_h, int dilation_w) {
  max_pool_grad<1>(grad_y, indices, grad_x, N, C, {H, OH, KH, stride_h, pad_h, dilation_h}, {W, OW, KW, stride_w, pad_w, dilation_w});
}

// v2, the idea: the same for four channels a thread.
// Bytes: 8·y in, 4·x out. Operations: 2 per pixel and window. Share of the copy rate: not yet measured.
extern "C" __global__ void max_pool2d_grad_x_v2_float4(const float* __restrict__ grad_y, const int* __restrict__ indices,
                                                       float* __restrict__ grad_x, int N, int C, int H, int W, int OH, int OW, int KH,
                                                       int KW, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h,
                                                       int dilation_w) {
  max_pool_grad<4>(grad_y, indices, grad_x, N, C, {H, OH, KH, stride_h, pad_h, dilation_h}, {W, OW, KW, stride_w, pad_w, dilation_w});
}

// The pixels that the positions name. Bytes: 4·y positions, 4·y numbers in (each its own 32-byte sector at worst), 4·y out.
// Share of the copy rate: not yet measured.   grid (ceil(N·OH·OW·C / blockDim.x)); PIXELS = H·W, WINDOWS = OH·OW
extern "C" __global__ void max_pool2d_at(const float* __restrict__ x, const int* __restrict__ indices, float* __restrict__ y, int N, int C,
                                         int PIXELS, int WINDOWS) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x, window = at / C, image = window / WINDOWS;
  if (image < N) y[at] = x[((long long)image * PIXELS + indices[at]) * C + (at - window * C)];
}

// Idea: the window's cells in reading order, then one division. Bytes: 4·(x + y). Operations: 1 per cell. Share: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void avg_pool(const float* __restrict__ x, float* __restrict__ y, int N, int C, const Axis& rows,
                                         const Axis& columns, int count_include_pad, float divisor) {
  Place place(C, rows.places, columns.places, WIDTH);
  if (place.image >= N) return;
  const float* image = x + (long long)place.image * rows.size * columns.size * C + place.c;
  Pack<WIDTH> sum = same_pack<WIDTH>(0.0f);
  int top = rows.first(place.row), bottom = rows.last(place.row), left = columns.first(place.column), right = columns.last(place.column);
  for (int h = top; h < bottom; h++)
    for (int w = left; w < right; w++) {
      Pack<WIDTH> seen = load_pack<WIDTH>(image + (long long)(h * columns.size + w) * C);
#pragma unroll
      for (int k = 0; k < WIDTH; k++) sum.v[k] += seen.v[k];
    }
  int cells = rows.cells(place.row, count_include_pad) * columns.cells(place.column, count_include_pad);
  float count = divisor != 0.0f ? divisor : (float)cells;
#pragma unroll
  for (int k = 0; k < WIDTH; k++) sum.v[k] /= count;
  store_pack<WIDTH>(y + place.at, sum);
}

// v1, the idea: a thread per channel of an output pixel adds up its window.
// Bytes: 4·x in, 4·y out. Operations: 1 per cell. Share of the copy rate: not yet measured.
extern "C" __global__ void avg_pool2d_v1_thread_per_output(const float* __restrict__ x, float* __restrict__ y, int N, int C, int H, int W,
                                                           int OH, int OW, int KH, int KW, int stride_h, int stride_w, int pad_h, int pad_w,
                                                           int count_include_pad, float divisor) {
  avg_pool<1>(x, y, N, C, {H, OH, KH, stride_h, pad_h, 1}, {W, OW, KW, stride_w, pad_w, 1}, count_include_pad, divisor);
}

// v2, the idea: four channels a thread, 16 bytes a load.
// Bytes: 4·x in, 4·y out. Operations: 1 per cell. Share of the copy rate: not yet measured.
extern "C" __global__ void avg_pool2d_v2_float4(const float* __restrict__ x, float* __restrict__ y, int N, int C, int H, int W, int OH,
                                                int OW, int KH, int KW, int stride_h, int stride_w, int pad_h, int pad_w,
                                                int count_include_pad, float divisor) {
  avg_pool<4>(x, y, N, C, {H, OH, KH, stride_h, pad_h, 1}, {W, OW, KW, stride_w, pad_w, 1}, count_include_pad, divisor);
}

// Idea: a pixel adds up its shares of the windows that hold it. Bytes: 4·(x + y). Operations: 2 per pixel and window.
// Share of the copy rate: not yet measured.
template <int WIDTH>
__device__ __forceinline__ void avg_pool_grad(const float* __restrict__ grad_y, float* __restrict__ grad_x, int N, int C, const Axis& rows,
                                              const Axis& columns, int count_include_pad, float divisor) {
  Place place(C, rows.size, columns.size, WIDTH);
  if (place.image >= N) return;
  Pack<WIDTH> sum = same_pack<WIDTH>(0.0f);
  int bottom = rows.highest(place.row), right = columns.highest(place.column), left = columns.lowest(place.column);
  for (int p = rows.lowest(place.row); p <= bottom; p++)
    for (int q = left; q <= right; q++) {
      Pack<WIDTH> grad = load_pack<WIDTH>(grad_y + (((long long)place.image * rows.places + p) * columns.places + q) * C + place.c);
      float count = divisor != 0.0f ? divisor : (float)(rows.cells(p, count_include_pad) * columns.cells(q, count_include_pad));
#pragma unroll
      for (int k = 0; k < WIDTH; k++) sum.v[k] += grad.v[k] / count;
    }
  store_pack<WIDTH>(grad_x + place.at, sum);
}

// v1, the idea: a thread per channel of a pixel adds up its shares of the windows that hold it.
// Bytes: 4·y in, 4·x out. Operations: 2 per pixel and window. Share of the copy rate: not yet measured.
extern "C" __global__ void avg_pool2d_grad_x_v1_thread_per_pixel(const float* __restrict__ grad_y, float* __restrict__ grad_x, int N, int C,
                                                                 int H, int W, int OH, int OW, int KH, int KW, int stride_h, int stride_w,
                                                                 int pad_h, int pad_w, int count_include_pad, float divisor) {
  avg_pool_grad<1>(grad_y, grad_x, N, C, {H, OH, KH, stride_h, pad_h, 1}, {W, OW, KW, stride_w, pad_w, 1}, count_include_pad, divisor);
}

// v2, the idea: the same for four channels a thread.
// Bytes: 4·y in, 4·x out. Operations: 2 per pixel and window. Share of the copy rate: not yet measured.
extern "C" __global__ void avg_pool2d_grad_x_v2_float4(const float* __restrict__ grad_y, float* __restrict__ grad_x, int N, int C, int H,
                                                       int W, int OH, int OW, int KH, int KW, int stride_h, int stride_w, int pad_h,
                                                       int pad_w, int count_include_pad, float divisor) {
  avg_pool_grad<4>(grad_y, grad_x, N, C, {H, OH, KH, stride_h, pad_h, 1}, {W, OW, KW, stride_w, pad_w, 1}, count_include_pad, divisor);
}
