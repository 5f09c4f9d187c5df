// conv_depthwise.cu: convolution with one input channel a group (MobileNet's 3x3 layers). As a matrix product each group would
// be one column wide and 9 deep: no tile can be filled. So neighbouring threads take neighbouring channels and compute directly.
//
//   y[n,p,q,o] = b[o] + sum over i,j of x[n, p*SH + i*DH - PT, q*SW + j*DW - PL, o / PER] * w[o,i,j],     PER = O / C filters a channel
//
// Limited by memory: 2 * KH * KW operations for a few bytes.

#define LANES 32    // channels side by side in a block: one 128-byte line
#define ROWS 8      // positions, or parts of a sum, in a block

// Idea        a thread computes one output; its filter is in registers' reach (cache), its pixels are read by neighbours too.
// Grid        (ceil(O / LANES), ceil(positions / ROWS), 1) block (LANES, ROWS); grid.y strides, so any number of positions fits.
// Memory      x once from memory, KH * KW / (SH * SW) times from the caches; y once: 4 * (N*C*H*W + N*O*OH*OW) bytes
// Operations  N*O*OH*OW * KH*KW multiply-adds
// Share       not yet measured (expected: 60-80 % of the copy speed)
extern "C" __global__ void conv2d_depthwise(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias,
    float* __restrict__ y, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const int o = blockIdx.x * LANES + threadIdx.x, positions = N * OH * OW;
  if (o >= O) return;
  const float b = bias ? bias[o] : 0.f;
  const float* cells = w + (long long)o * KH * KW;
  for (int at = blockIdx.y * ROWS + threadIdx.y; at < positions; at += gridDim.y * ROWS) {
    const int q = at % OW, p = at / OW % OH, n = at / OW / OH;
    const float* image = x + (long long)n * H * W * C + o / (O / C);
    float sum = 0.f;
    for (int i = 0; i < KH; i++)
      for (int j = 0; j < KW; j++) {
        const int h = p * SH + i * DH - PT, v = q * SW + j * DW - PL;
        if (h >= 0 && h < H && v >= 0 && v < W) sum += image[(h * W + v) * C] * cells[i * KW + j];
      }
    y[(long long)at * O + o] = sum + b;
  }
}

// Idea        the gradient gathers: a pixel adds up what every output that read it hands back. No two threads write one number.
// Grid        (ceil(C / LANES), ceil(pixels / ROWS), 1), block (LANES, ROWS)
// Memory      4 * (N*C*H*W + N*O*OH*OW) bytes
// Operations  N*O*OH*OW * KH*KW multiply-adds, and a division by the stride per cell
// Share       not yet measured
extern "C" __global__ void conv2d_grad_x_depthwise(const float* __restrict__ grad_y, const float* __restrict__ w,
    float* __restrict__ grad_x, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  const int c = blockIdx.x * LANES + threadIdx.x, pixels = N * H * W, PER = O / C;
  if (c >= C) return;
  for (int at = blockIdx.y * ROWS + threadIdx.y; at < pixels; at += gridDim.y * ROWS) {
    const int v = at % W, h = at / W % H, n = at / W / H;
    float sum = 0.f;
    for (int i = 0; i < KH; i++)
      for (int j = 0; j < KW; j++) {
        const int hs = h + PT - i * DH, vs = v + PL - j * DW;               // p*SH and q*SW, if there are such p and q
        if (hs < 0 || vs < 0 || hs % SH != 0 || vs % SW != 0 || hs / SH >= OH || vs / SW >= OW) continue;
        const float* output = grad_y + ((long long)(n * OH + hs / SH) * OW + vs / SW) * O + c * PER;
        for (int f = 0; f < PER; f++) sum += output[f] * w[((long long)(c * PER + f) * KH + i) * KW + j];
      }
    grad_x[(long long)at * C + c] = sum;
  }
}

// Idea        one sum over all positions per cell of each filter. A block takes LANES filters, one cell and one part of the
//             positions; its ROWS threads per filter take every ROWS-th position and are added up in order, and so are the parts.
// Grid        (ceil(O / LANES), KH * KW, splits), block (LANES, ROWS); parts (splits, O, KH * KW), then sum_in_order
// Memory      x and grad_y KH * KW times, all but the first time from the L2 cache where they fit
// Operations  N*O*OH*OW * KH*KW multiply-adds
// Share       not yet measured
extern "C" __global__ void conv2d_grad_w_depthwise(const float* __restrict__ x, const float* __restrict__ grad_y,
    float* __restrict__ grad_w, int part, int splits, int N, int C, int H, int W, int O, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW, int groups) {
  __shared__ float sums[ROWS][LANES];
  const int o = blockIdx.x * LANES + threadIdx.x, i = blockIdx.y / KW, j = blockIdx.y % KW;
  const int begin = blockIdx.z * part, end = min(begin + part, N * OH * OW);
  float sum = 0.f;
  if (o < O)
    for (int at = begin + threadIdx.y; at < end; at += ROWS) {
      const int q = at % OW, p = at / OW % OH, n = at / OW / OH, h = p * SH + i * DH - PT, v = q * SW + j * DW - PL;
      if (h >= 0 && h < H && v >= 0 && v < W) sum += x[((long long)(n * H + h) * W + v) * C + o / (O / C)] * grad_y[(long long)at * O + o];
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && o < O) {
    for (int r = 1; r < ROWS; r++) sum += sums[r][threadIdx.x];
    grad_w[((long long)blockIdx.z * O + o) * KH * KW + blockIdx.y] = sum;
  }
}
