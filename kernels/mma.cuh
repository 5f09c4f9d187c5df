// mma.cuh: tensor cores. mma_m16n8k8 is the one instruction that a warp executes together; TensorCores is the arithmetic of
// rungs v5 (one product per factor pair, TF32) and v6 (three, as precise as float32) for pipelined() in tile.cuh.
#ifndef MINIDL_MMA_CUH
#define MINIDL_MMA_CUH
#include "tile.cuh"

// Rounded to TF32: float32's exponent, 10 bits of mantissa, to nearest. (The instruction itself would cut bits off: a bias.)
__device__ __forceinline__ unsigned to_tf32(float x) {
#ifdef MINIDL_ON_CPU
  return cpu_to_tf32(x);
#else
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#endif
}

// d (16x8) += a (16x8) * b (8x8), spread over the registers of a warp. With g = lane / 4 and t = lane % 4, a lane holds
//   a: [g][t], [g+8][t], [g][t+4], [g+8][t+4]     b: [t][g], [t+4][g]     d: [g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1]
__device__ __forceinline__ void mma_m16n8k8(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MINIDL_ON_CPU
  cpu_mma_m16n8k8_tf32(d, a, b, d);
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// A tile as 16-byte copies leave it, [row][k] or [k][row], shuffled with an exclusive or ("swizzle") so that neither the copies
// nor the reads of TensorCores meet one bank twice. No padding: 3 stages of 128 x 128 fit into 48 KB.
template <bool ALONG_K, int ROWS, int DEPTH>
struct Swizzled {
  static_assert(DEPTH == 16, "made for rows of four 16-byte pieces");
  static constexpr int SIZE = ROWS * DEPTH;
  static constexpr bool LIES_ALONG_K = ALONG_K;
  static __device__ __forceinline__ int at(int row, int k) {
    if (ALONG_K) return row * DEPTH + (((k >> 2) ^ (row >> 1 & 3)) << 2 | (k & 3));
    return k * ROWS + (row ^ (k >> 2 & 3) << 3);
  }
};

// A warp makes WARP_M x WARP_N outputs of the tile, 16 x 8 at a time. TERMS 1: TF32. TERMS 3: x = big + small, each of 11 bits,
// and x * y = small*big + big*small + big*big; what is left out, small*small, is below float32's last bit.
template <int TILE_M, int TILE_N, int WARP_M, int WARP_N, int TERMS>
struct TensorCores {
  static constexpr int DEPTH = 16, WARPS_ACROSS = TILE_N / WARP_N, THREADS = TILE_M / WARP_M * WARPS_ACROSS * 32;
  static constexpr int DOWN = WARP_M / 16, RIGHT = WARP_N / 8;

  template <bool ALONG_K, int ROWS>
  using Tile = Swizzled<ALONG_K, ROWS, DEPTH>;

  int m, n, g, t;
  float sum[DOWN][RIGHT][4] = {};

  __device__ __forceinline__ TensorCores() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    m = warp / WARPS_ACROSS * WARP_M; n = warp % WARPS_ACROSS * WARP_N;
    g = lane / 4; t = lane % 4;
  }

  // A sum does not care in which order k comes, if both factors agree on it. So lane t takes k = 4t ... 4t + 3 of the 16 in a tile,
  // one 16-byte read, and the instruction believes the first two to be its k = t and t + 4, and the next two those of the next step.
  template <class T>
  __device__ __forceinline__ void read(float (&v)[4], const float* tile, int row) const {
    if (T::LIES_ALONG_K) {
      read4(v, tile + T::at(row, 4 * t));
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] = tile[T::at(row, 4 * t + e)];
    }
  }

  template <class TileA, class TileB>
  __device__ __forceinline__ void step(const float* A, const float* B) {
    float b[RIGHT][4];
#pragma unroll
    for (int c = 0; c < RIGHT; c++) read<TileB>(b[c], B, n + c * 8 + g);
#pragma unroll
    for (int r = 0; r < DOWN; r++) {
      float upper[4], lower[4];
      read<TileA>(upper, A, m + r * 16 + g);
      read<TileA>(lower, A, m + r * 16 + g + 8);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const float a[4] = {upper[k], lower[k], upper[k + 1], lower[k + 1]};
        unsigned a_big[4], a_small[4];
        split(a_big, a_small, a);
#pragma unroll
        for (int c = 0; c < RIGHT; c++) {
          const float pair[2] = {b[c][k], b[c][k + 1]};
          unsigned b_big[2], b_small[2];
          split(b_big, b_small, pair);
          if (TERMS == 3) {
            mma_m16n8k8(sum[r][c], a_small, b_big);
            mma_m16n8k8(sum[r][c], a_big, b_small);
          }
          mma_m16n8k8(sum[r][c], a_big, b_big);
        }
      }
    }
  }

  template <int COUNT>
  static __device__ __forceinline__ void split(unsigned (&big)[COUNT], unsigned (&small)[COUNT], const float (&x)[COUNT]) {
#pragma unroll
    for (int e = 0; e < COUNT; e++) {
      big[e] = to_tf32(x[e]);
      small[e] = TERMS == 3 ? to_tf32(x[e] - __uint_as_float(big[e])) : 0u;
    }
  }

  template <class TileA, class TileB, int VECTOR, typename Map>
  __device__ __forceinline__ void store(const Map& map, int m0, int n0) const {
#pragma unroll
    for (int r = 0; r < 2 * DOWN; r++) {
      const int row = m0 + m + r * 8 + g;
      if (row >= map.M) continue;
      float* out = map.out(row);
#pragma unroll
      for (int c = 0; c < RIGHT; c++) {
        const int column = n0 + n + c * 8 + 2 * t;          // N is a multiple of 4: column + 1 is inside too
        const float* d = &sum[r / 2][c][r % 2 * 2];
        if (column < map.N) *reinterpret_cast<float2*>(out + column) = make_float2(d[0] + map.bias(column), d[1] + map.bias(column + 1));
      }
    }
  }
};

#endif
