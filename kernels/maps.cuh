// maps.cuh: the three index maps of convolution. A convolution, its image gradient and its filter gradient are each one
// matrix product C[m, n] = sum over k of A[m, k] * B[k, n] whose operands are read in place, by address arithmetic:
//
//              m (rows)          n (columns)     k (summed)        A                  B
//   Forward    windows n,p,q     filters o       taps i,j,c        x, by windows      w
//   GradX      pixels  n,h,w     channels c      taps i,j,o        grad_y, by windows w, turned
//   GradW      filters o         taps i,j,c      windows n,p,q     grad_y             x, by windows
//
// Images are N H W C in memory, filters O KH KW C: the channel is innermost, so neighbours in c (or o) are neighbours in
// memory. A "tap" is one cell of a filter: (i, j, c). Every operand says how its rows and its k are numbered (row, depth),
// how to walk along k without dividing (add), and where an element stands (at; null means zero: it lies in the padding).
#ifndef MINIDL_MAPS_CUH
#define MINIDL_MAPS_CUH

#ifndef POINTWISE   // 1: kernel 1x1, stride 1, no padding: a plain matrix product, called with N = H = KH = 1, W = all pixels
#define POINTWISE 0
#endif

struct Conv {       // the sizes of one convolution, in the letters of docs/notation.md
  int N, C, H, W, O, OH, OW, KH, KW, SH, SW, PT, PL, DH, DW, groups;   // stride, padding at top and left, dilation
};

struct Tap { int i, j, c; };                    // a column of im2col's matrix
struct Window { int n, p, q; };                 // a row of it
struct Place { unsigned start; int h, w; };     // either of them as a distance: floats, rows and columns of the image

// im2col's matrix, never stored: window (n, p, q) meets tap (i, j, c) at pixel h = p*SH + h0 + i*DH, w = q*SW + w0 + j*DW.
struct Windows {
  const float* x;
  int H, W, pitch;                  // the image; floats from one pixel to the next
  int PH, PW, SH, SW, h0, w0;       // how many windows an image has, how far apart, and where the first begins
  int KH, KW, DH, DW, channels;     // taps: how many, how far apart, and how many channels each

  __device__ __forceinline__ Tap tap(int k) const { return {k / channels / KW, k / channels % KW, k % channels}; }
  __device__ __forceinline__ Window window(int m) const { return {m / PW / PH, m / PW % PH, m % PW}; }

  // The sum of two positions, digit by digit with carries, like the hands of a clock: cheaper than dividing again.
  __device__ __forceinline__ void add(Tap& t, const Tap& by) const {
    t.i += by.i; t.j += by.j; t.c += by.c;
    if (t.c >= channels) { t.c -= channels; t.j += 1; }
    if (t.j >= KW) { t.j -= KW; t.i += 1; }
  }
  __device__ __forceinline__ void add(Window& m, const Window& by) const {
    m.n += by.n; m.p += by.p; m.q += by.q;
    if (m.q >= PW) { m.q -= PW; m.p += 1; }
    if (m.p >= PH) { m.p -= PH; m.n += 1; }
  }
  // Where a window begins, and how far a tap is from there. The sum of the two is a pixel. A window that begins in the padding has
  // a "negative" start: the sum is right all the same, modulo 2^32.
  __device__ __forceinline__ Place place(const Window& m) const {
    const int h = m.p * SH + h0, w = m.q * SW + w0;
    return {(unsigned)(((m.n * H + h) * W + w) * pitch), h, w};
  }
  __device__ __forceinline__ Place place(const Tap& t) const {
    const int h = t.i * DH, w = t.j * DW;
    return {(unsigned)((h * W + w) * pitch + t.c), h, w};
  }
  __device__ __forceinline__ const float* at(const Place& m, const Place& t) const {
    if (!POINTWISE && ((unsigned)(m.h + t.h) >= (unsigned)H || (unsigned)(m.w + t.w) >= (unsigned)W)) return nullptr;   // padding
    return x + (m.start + t.start);
  }
};

// ---------------------------------------------------------------------------- operands
// ALONG_K: are neighbours in memory neighbours in k (true), or in the row (false)?

struct WindowsByTaps {              // A of Forward and of GradX
  static constexpr bool ALONG_K = true;
  using Row = Place;
  using Depth = Tap;
  Windows v;
  __device__ __forceinline__ Row row(int m) const { return v.place(v.window(m)); }
  __device__ __forceinline__ Depth depth(int k) const { return v.tap(k); }
  __device__ __forceinline__ void add(Depth& k, const Depth& by) const { v.add(k, by); }
  __device__ __forceinline__ const float* at(const Row& m, const Depth& k) const { return v.at(m, v.place(k)); }
};

struct TapsByWindows {              // B of GradW: the same matrix, summed over its rows
  static constexpr bool ALONG_K = false;
  using Row = Place;
  using Depth = Window;
  Windows v;
  __device__ __forceinline__ Row row(int n) const { return v.place(v.tap(n)); }
  __device__ __forceinline__ Depth depth(int k) const { return v.window(k); }
  __device__ __forceinline__ void add(Depth& k, const Depth& by) const { v.add(k, by); }
  __device__ __forceinline__ const float* at(const Row& n, const Depth& k) const { return v.at(v.place(k), n); }
};

struct Filters {                    // B of Forward: filter o is one run of taps
  static constexpr bool ALONG_K = true;
  using Row = unsigned;
  using Depth = int;
  const float* w;
  int taps;
  __device__ __forceinline__ unsigned row(int o) const { return o * taps; }
  __device__ __forceinline__ int depth(int k) const { return k; }
  __device__ __forceinline__ void add(int& k, int by) const { k += by; }
  __device__ __forceinline__ const float* at(unsigned start, int k) const { return w + (start + k); }
};

struct FiltersTurned {              // B of GradX: tap (i, j, o) of channel c; every istep-th cell from i0 on, jstep-th from j0 on
  static constexpr bool ALONG_K = false;
  using Row = int;
  using Depth = Tap;
  const float* w;
  int KH, KW, C, i0, istep, j0, jstep;
  Windows taps;                     // counts (i, j, o) as A does
  __device__ __forceinline__ int row(int c) const { return c; }
  __device__ __forceinline__ Tap depth(int k) const { return taps.tap(k); }
  __device__ __forceinline__ void add(Tap& k, const Tap& by) const { taps.add(k, by); }
  __device__ __forceinline__ const float* at(int c, const Tap& k) const {
    return w + (unsigned)(((k.c * KH + i0 + k.i * istep) * KW + j0 + k.j * jstep) * C + c);
  }
};

struct Outputs {                    // A of GradW: grad_y, one position a row of O numbers
  static constexpr bool ALONG_K = false;
  using Row = int;
  using Depth = int;
  const float* y;
  int pitch;
  __device__ __forceinline__ int row(int o) const { return o; }
  __device__ __forceinline__ int depth(int k) const { return k; }
  __device__ __forceinline__ void add(int& k, int by) const { k += by; }
  __device__ __forceinline__ const float* at(int o, int k) const { return y + (unsigned)(k * pitch + o); }
};

// ---------------------------------------------------------------------------- the three products
// M x N outputs, summed over k from k_begin to k_end. out(m) is where row m of the result begins; bias(n) is added to column n.
//
// Where there are few tiles and long sums, the sum over k is cut into `splits` parts of `part` each (the last may be shorter, or
// empty). Each part writes a result of its own, and sum_in_order adds them up: the same order on every run, so the same bits. No atomics.

struct Forward {                    // blockIdx.z: group * splits + split
  WindowsByTaps a;
  Filters b;
  int M, N, k_begin, k_end, O;
  float* y;
  const float* biases;              // null: none

  __device__ __forceinline__ Forward(const float* x, const float* w, const float* bias, float* y_, const Conv& s, int part, int splits, int z) {
    const int group = z / splits, split = z % splits, C = s.C / s.groups, filters = s.O / s.groups, K = s.KH * s.KW * C;
    a.v = {x + group * C, s.H, s.W, s.C, s.OH, s.OW, s.SH, s.SW, -s.PT, -s.PL, s.KH, s.KW, s.DH, s.DW, C};
    b = {w + (long long)group * filters * K, K};
    M = s.N * s.OH * s.OW; N = filters; O = s.O;
    k_begin = split * part;
    k_end = min(k_begin + part, K);
    y = y_ + (long long)split * M * O + group * filters;
    biases = bias ? bias + group * filters : nullptr;
  }
  __device__ __forceinline__ float* out(int m) const { return y + (unsigned)(m * O); }
  __device__ __forceinline__ float bias(int n) const { return biases ? __ldg(biases + n) : 0.f; }
};

// With stride 2 a pixel in an even row hears only of every second cell of the filter, one in an odd row of the others.
// So the pixels fall into SH x SW classes (h % SH, w % SW), and each class is a convolution of grad_y with stride 1 and its
// own cells: no multiplication by a zero between. Pixel h = class + SH*p' meets cell i at output p = p' + (class + PT - i*DH) / SH.
struct PixelClass {
  int first, step, count, start, move;   // cells first, first + step, ... (count of them); p = p' + start + t*move for the t-th

  __device__ __forceinline__ PixelClass(int which, int K, int stride, int pad, int dilation) {
    first = 0;
    while (first < K && (which + pad - first * dilation) % stride != 0) first += 1;
    step = 1;
    while (step * dilation % stride != 0) step += 1;
    count = first < K ? (K - 1 - first) / step + 1 : 0;
    start = count ? (which + pad - first * dilation) / stride : 0;       // divides exactly, negative or not
    move = -(step * dilation / stride);
  }
};

struct GradX {                      // blockIdx.z: ((group * SH + class of rows) * SW + class of columns) * splits + split
  WindowsByTaps a;
  FiltersTurned b;
  int M, N, k_begin, k_end;
  Conv s;
  int h_class, w_class, rows, columns;
  float* x;

  __device__ __forceinline__ GradX(const float* grad_y, const float* w, float* grad_x, const Conv& s_, int part, int splits, int z) : s(s_) {
    const int split = z % splits;
    z /= splits;
    const int group = z / (s.SH * s.SW), C = s.C / s.groups, filters = s.O / s.groups;
    h_class = z / s.SW % s.SH; w_class = z % s.SW;
    rows = h_class < s.H ? (s.H - 1 - h_class) / s.SH + 1 : 0;
    columns = w_class < s.W ? (s.W - 1 - w_class) / s.SW + 1 : 0;
    const PixelClass i(h_class, s.KH, s.SH, s.PT, s.DH), j(w_class, s.KW, s.SW, s.PL, s.DW);
    a.v = {grad_y + group * filters, s.OH, s.OW, s.O, rows, columns, 1, 1, i.start, j.start, i.count, j.count, i.move, j.move, filters};
    if (j.count == 0) a.v.KW = 1;   // no taps at all: k_end is 0; nobody divides by 0
    b = {w + (long long)group * filters * s.KH * s.KW * C, s.KH, s.KW, C, i.first, i.step, j.first, j.step, a.v};
    M = s.N * rows * columns; N = C;
    k_begin = split * part;
    k_end = min(k_begin + part, i.count * j.count * filters);     // a class with few cells leaves later parts empty: they write zeros
    x = grad_x + (long long)split * s.N * s.H * s.W * s.C + group * C;
  }
  __device__ __forceinline__ float* out(int m) const {
    const int n = m / columns / rows, h = m / columns % rows * s.SH + h_class, w = m % columns * s.SW + w_class;
    return x + (unsigned)(((n * s.H + h) * s.W + w) * s.C);
  }
  __device__ __forceinline__ float bias(int) const { return 0.f; }
};

// The filters are few and the positions many: here the sum is almost always cut.
struct GradW {                      // blockIdx.z: group * splits + split
  Outputs a;
  TapsByWindows b;
  int M, N, k_begin, k_end;
  float* w;

  __device__ __forceinline__ GradW(const float* x, const float* grad_y, float* grad_w, const Conv& s, int part, int splits, int z) {
    const int group = z / splits, split = z % splits, C = s.C / s.groups, filters = s.O / s.groups;
    M = filters; N = s.KH * s.KW * C;
    a = {grad_y + group * filters, s.O};
    b.v = {x + group * C, s.H, s.W, s.C, s.OH, s.OW, s.SH, s.SW, -s.PT, -s.PL, s.KH, s.KW, s.DH, s.DW, C};
    k_begin = split * part;
    k_end = min(k_begin + part, s.N * s.OH * s.OW);
    w = grad_w + ((long long)split * s.O + group * filters) * N;
  }
  __device__ __forceinline__ float* out(int m) const { return w + (unsigned)(m * N); }
  __device__ __forceinline__ float bias(int) const { return 0.f; }
};

#endif
