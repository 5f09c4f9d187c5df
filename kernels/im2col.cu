// im2col.cu: the baseline rung of convolution. Every window of the image is written out as a row of a matrix; then a convolution
// is one product of matrices, which the vendor's library does well. What it costs is the matrix: KH * KW times the image.
//
//   columns[(n, p, q), (i, j, c)] = x[n, p*SH + i*DH - PT, q*SW + j*DW - PL, c], zero in the padding      (one group)

// Idea        a thread per number; neighbours in c read and write neighbours.
// Grid        1-D, a thread per number of columns
// Memory      4 * N*OH*OW * KH*KW*C bytes written; read about N*H*W*C from memory, the repetitions from the caches
// Operations  none but indices
// Share       not yet measured (expected: 80 % of the copy speed)
extern "C" __global__ void im2col(const float* __restrict__ x, float* __restrict__ columns, int N, int C, int H, int W, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (long long)N * OH * OW * KH * KW * C) return;
  const int c = at % C, j = at / C % KW, i = at / C / KW % KH;
  const int window = at / C / KW / KH, q = window % OW, p = window / OW % OH, n = window / OW / OH;
  const int h = p * SH + i * DH - PT, v = q * SW + j * DW - PL;
  columns[at] = h >= 0 && h < H && v >= 0 && v < W ? x[((long long)(n * H + h) * W + v) * C + c] : 0.f;
}

// Idea        the way back: a pixel collects its number from every row that holds it. Gathering instead of scattering: no atomics,
//             i and j go upwards, the same sum every time.
// Grid        1-D, a thread per number of x
// Memory      4 * (N*OH*OW * KH*KW*C + N*H*W*C) bytes
// Operations  one addition per number of columns
// Share       not yet measured
extern "C" __global__ void col2im(const float* __restrict__ columns, float* __restrict__ x, int N, int C, int H, int W, int OH, int OW,
    int KH, int KW, int SH, int SW, int PT, int PL, int DH, int DW) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (long long)N * H * W * C) return;
  const int c = at % C, v = at / C % W, h = at / C / W % H, n = at / C / W / H;
  float sum = 0.f;
  for (int i = 0; i < KH; i++)
    for (int j = 0; j < KW; j++) {
      const int hs = h + PT - i * DH, vs = v + PL - j * DW;                 // p*SH and q*SW, if there are such p and q
      if (hs < 0 || vs < 0 || hs % SH != 0 || vs % SW != 0 || hs / SH >= OH || vs / SW >= OW) continue;
      sum += columns[((((long long)n * OH + hs / SH) * OW + vs / SW) * KH * KW + i * KW + j) * C + c];
    }
  x[at] = sum;
}
