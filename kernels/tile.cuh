// tile.cuh: the tile loop that rungs v3 to v6 of convolution share. It computes C = A * B for any map of maps.cuh.
//
//   Loader      which elements of an operand a thread brings in, and how it walks along k
//   blocked     v3: tiles through registers into shared memory, 8 x 8 outputs per thread
//   pipelined   v4-v6: tiles arrive by cp.async while earlier ones are multiplied; Math says how (FusedMultiplyAdd here, mma.cuh)
#ifndef MINIDL_TILE_CUH
#define MINIDL_TILE_CUH
#include "async.cuh"
#include "maps.cuh"

// ---------------------------------------------------------------------------- which tile is mine
// Blocks start in the order of their number. Numbered in bands of 8 tiles along m, the blocks that run at the same time
// cover a compact patch of the result: what they load of A and B overlaps, and comes from the L2 cache.
struct TileAt {
  int m, n;
  __device__ __forceinline__ TileAt(int block, int M, int N, int TILE_M, int TILE_N) {
    const int tall = (M + TILE_M - 1) / TILE_M, wide = (N + TILE_N - 1) / TILE_N;
    const int band = block / (8 * wide), inside = block - band * 8 * wide;
    const int height = min(8, tall - band * 8);
    m = (band * 8 + inside % max(height, 1)) * TILE_M;
    n = inside / max(height, 1) * TILE_N;
    if (height <= 0) m = M;      // a class of GradX may have fewer tiles than the grid: m >= M, nothing to do
  }
};

// ---------------------------------------------------------------------------- bringing a tile in
// A tile is ROWS x DEPTH (k). VECTOR neighbours in memory (4: one 16-byte load; 1: where channels are no multiple of 4) lie
// along k or along the row, as the operand says. Threads go along that direction first, so a warp's loads coalesce.
template <class Operand, int ROWS, int DEPTH, int THREADS, int VECTOR>
struct Loader {
  static constexpr bool ALONG_K = Operand::ALONG_K;
  static constexpr int LANES = (ALONG_K ? DEPTH : ROWS) / VECTOR;          // threads side by side
  static constexpr int STEP = THREADS / LANES;                          // rows (or k) that all threads cover at once
  static constexpr int COUNT = (ALONG_K ? ROWS : DEPTH) / STEP;         // loads per thread and tile
  static_assert(THREADS % LANES == 0 && COUNT * STEP == (ALONG_K ? ROWS : DEPTH), "this tile does not divide among the threads");
  static constexpr int FIXED = ALONG_K ? COUNT : 1, MOVING = ALONG_K ? 1 : COUNT;

  const Operand& operand;
  typename Operand::Row rows[FIXED];
  typename Operand::Depth depths[MOVING], by;
  int side, down;                   // my place in the tile: along memory, and across
  int rows_left, k_left;            // from my first element to the ragged edges

  __device__ __forceinline__ Loader(const Operand& o, int row0, int row_end, int k0, int k_end) : operand(o) {
    side = threadIdx.x % LANES * VECTOR; down = threadIdx.x / LANES;
    const int r = row0 + (ALONG_K ? down : side), k = k0 + (ALONG_K ? side : down);
    rows_left = row_end - r; k_left = k_end - k;
#pragma unroll
    for (int e = 0; e < FIXED; e++) rows[e] = o.row(r + e * STEP);
#pragma unroll
    for (int e = 0; e < MOVING; e++) depths[e] = o.depth(k + e * STEP);
    by = o.depth(DEPTH);
  }
  __device__ __forceinline__ int row(int e) const { return ALONG_K ? down + e * STEP : side; }     // where load e goes
  __device__ __forceinline__ int depth(int e) const { return ALONG_K ? side : down + e * STEP; }
  __device__ __forceinline__ const float* from(int e) const {           // where it comes from; null: zeros
    const bool here = ALONG_K ? e * STEP < rows_left && 0 < k_left : 0 < rows_left && e * STEP < k_left;
    return here ? operand.at(rows[ALONG_K ? e : 0], depths[ALONG_K ? 0 : e]) : nullptr;
  }
  __device__ __forceinline__ void next() {
    k_left -= DEPTH;
#pragma unroll
    for (int e = 0; e < MOVING; e++) operand.add(depths[e], by);
  }
};

// ---------------------------------------------------------------------------- moving numbers
__device__ __forceinline__ void read4(float* to, const float* from) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x; to[1] = v.y; to[2] = v.z; to[3] = v.w;
}

// Four neighbouring columns of one row of the result, plus bias; one 16-byte store where that is aligned.
template <int VECTOR, typename Map>
__device__ __forceinline__ void write4(const Map& map, int row, int n, const float* v) {
  float* to = map.out(row) + n;
  if (VECTOR == 4) {
    if (n >= map.N) return;       // N is a multiple of 4
    const float4 sum = make_float4(v[0] + map.bias(n), v[1] + map.bias(n + 1), v[2] + map.bias(n + 2), v[3] + map.bias(n + 3));
    *reinterpret_cast<float4*>(to) = sum;
  } else {
#pragma unroll
    for (int c = 0; c < 4; c++)
      if (n + c < map.N) to[c] = v[c] + map.bias(n + c);
  }
}

__device__ __forceinline__ void multiply_add(float (&sum)[8][8], const float (&a)[8], const float (&b)[8]) {
#pragma unroll
  for (int r = 0; r < 8; r++)
#pragma unroll
    for (int c = 0; c < 8; c++) sum[r][c] += a[r] * b[c];
}

// Rows m ... m + 3 and `down` further on; columns n ... n + 3 and `right` further on.
template <int VECTOR, typename Map>
__device__ __forceinline__ void write_8x8(const Map& map, const float (&sum)[8][8], int m, int down, int n, int right) {
#pragma unroll
  for (int r = 0; r < 8; r++) {
    const int row = m + r / 4 * down + r % 4;
    if (row < map.M) {
      write4<VECTOR>(map, row, n, &sum[r][0]);
      write4<VECTOR>(map, row, n + right, &sum[r][4]);
    }
  }
}

// Through registers into [k][row]: the tile is turned on the way where the operand lies along k.
template <int VECTOR, class Load, int PITCH, int TILE_K>
__device__ __forceinline__ void put(Load& load, float (&tile)[TILE_K][PITCH]) {
  float v[Load::COUNT][VECTOR];
#pragma unroll
  for (int e = 0; e < Load::COUNT; e++) {                                // all loads first: they are under way together
    const float* from = load.from(e);
#pragma unroll
    for (int f = 0; f < VECTOR; f++) v[e][f] = 0.f;
    if (VECTOR == 4 && from) read4(v[e], from);
    if (VECTOR == 1 && from) v[e][0] = __ldg(from);
  }
#pragma unroll
  for (int e = 0; e < Load::COUNT; e++)
#pragma unroll
    for (int f = 0; f < VECTOR; f++) tile[load.depth(e) + (Load::ALONG_K ? f : 0)][load.row(e) + (Load::ALONG_K ? 0 : f)] = v[e][f];
  load.next();
}

// ---------------------------------------------------------------------------- v3
// Both tiles lie in shared memory as [k][row]: per k a thread reads its 8 rows and 8 columns in four 16-byte loads and does 64
// multiply-adds. Its rows are 4 + 4, half a tile apart, so that the 16-byte loads of neighbouring threads touch neighbouring banks.
template <int TILE_M, int TILE_N, int TILE_K, int VECTOR, typename Map>
__device__ __forceinline__ void blocked(const Map& map) {
  constexpr int ACROSS = TILE_N / 8, THREADS = TILE_M / 8 * ACROSS;
  __shared__ __align__(16) float A[TILE_K][TILE_M + 4], B[TILE_K][TILE_N + 4];          // + 4: writes along k meet different banks
  const TileAt tile(blockIdx.x, map.M, map.N, TILE_M, TILE_N);
  if (tile.m >= map.M) return;                                          // the whole block: nobody waits at a barrier
  Loader<decltype(map.a), TILE_M, TILE_K, THREADS, VECTOR> load_a(map.a, tile.m, map.M, map.k_begin, map.k_end);
  Loader<decltype(map.b), TILE_N, TILE_K, THREADS, VECTOR> load_b(map.b, tile.n, map.N, map.k_begin, map.k_end);
  const int m = threadIdx.x / ACROSS * 4, n = threadIdx.x % ACROSS * 4;
  float sum[8][8] = {};

  for (int k0 = map.k_begin; k0 < map.k_end; k0 += TILE_K) {
    put<VECTOR>(load_a, A);
    put<VECTOR>(load_b, B);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
      float a[8], b[8];
      read4(a, &A[k][m]); read4(a + 4, &A[k][TILE_M / 2 + m]);
      read4(b, &B[k][n]); read4(b + 4, &B[k][TILE_N / 2 + n]);
      multiply_add(sum, a, b);
    }
    __syncthreads();
  }
  write_8x8<VECTOR>(map, sum, tile.m + m, TILE_M / 2, tile.n + n, TILE_N / 2);
}

// ---------------------------------------------------------------------------- v4 to v6
// RING buffers. While tile t is multiplied, tiles t + 1 ... t + RING - 1 are on their way. One barrier a tile: it says both
// "tile t is here, for everyone" and "everyone is done with tile t - 1", whose buffer is filled next.
template <class Math, int TILE_M, int TILE_N, int RING, int VECTOR, typename Map>
__device__ __forceinline__ void pipelined(const Map& map) {
  using TileA = typename Math::template Tile<decltype(map.a)::ALONG_K, TILE_M>;
  using TileB = typename Math::template Tile<decltype(map.b)::ALONG_K, TILE_N>;
  __shared__ __align__(16) float A[RING][TileA::SIZE], B[RING][TileB::SIZE];
  const TileAt tile(blockIdx.x, map.M, map.N, TILE_M, TILE_N);
  if (tile.m >= map.M) return;
  Loader<decltype(map.a), TILE_M, Math::DEPTH, Math::THREADS, VECTOR> load_a(map.a, tile.m, map.M, map.k_begin, map.k_end);
  Loader<decltype(map.b), TILE_N, Math::DEPTH, Math::THREADS, VECTOR> load_b(map.b, tile.n, map.N, map.k_begin, map.k_end);
  const int tiles = (map.k_end - map.k_begin + Math::DEPTH - 1) / Math::DEPTH;
  auto fetch = [&](int t) {
    if (t < tiles) {
      float *a = A[t % RING], *b = B[t % RING];
#pragma unroll
      for (int e = 0; e < load_a.COUNT; e++) start_copy<VECTOR>(a + TileA::at(load_a.row(e), load_a.depth(e)), load_a.from(e));
#pragma unroll
      for (int e = 0; e < load_b.COUNT; e++) start_copy<VECTOR>(b + TileB::at(load_b.row(e), load_b.depth(e)), load_b.from(e));
      load_a.next(); load_b.next();
    }
    close_group();                  // also an empty one: waiting counts groups
  };
  Math math;
#pragma unroll
  for (int t = 0; t < RING - 1; t++) fetch(t);
  for (int t = 0; t < tiles; t++) {
    wait_for_groups<RING - 2>();
    __syncthreads();
    fetch(t + RING - 1);
    math.template step<TileA, TileB>(A[t % RING], B[t % RING]);
  }
  math.template store<TileA, TileB, VECTOR>(map, tile.m, tile.n);
}

// v4's arithmetic: 8 x 8 outputs a thread, 4 k at a time. A warp makes 32 x 64 outputs, its lanes lie 4 x 8: of the shapes a warp
// can have this one reads least from shared memory.
template <int TILE_M, int TILE_N>
struct FusedMultiplyAdd {
  static constexpr int DEPTH = 16, WARPS_ACROSS = TILE_N / 64, THREADS = TILE_M / 32 * WARPS_ACROSS * 32;

  // [row][k] or [k][row], as 16-byte copies leave it. Rows of 20 floats: 8 lanes that read 16 bytes in 8 rows meet 32 banks, and
  // every place is a constant away from the thread's first one.
  template <bool ALONG_K, int ROWS>
  struct Tile {
    static constexpr int PITCH = DEPTH + 4, SIZE = ALONG_K ? ROWS * PITCH : DEPTH * ROWS;
    static constexpr bool LIES_ALONG_K = ALONG_K;
    static __device__ __forceinline__ int at(int row, int k) { return ALONG_K ? row * PITCH + k : k * ROWS + row; }
  };

  int m, n, lane_m, lane_n;
  float sum[8][8] = {};

  __device__ __forceinline__ FusedMultiplyAdd() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    m = warp / WARPS_ACROSS * 32; n = warp % WARPS_ACROSS * 64;
    lane_m = lane / 8; lane_n = lane % 8;
  }
  // The r-th of my 8 rows in a piece of 8 * LANES. Where 16 bytes lie along k: every LANES-th row, one read each. Where they lie
  // along the row: two runs of 4.
  template <class T, int LANES>
  static __device__ __forceinline__ int row(int lane, int r) {
    return T::LIES_ALONG_K ? lane + LANES * r : (r / 4 * LANES + lane) * 4 + r % 4;
  }
  template <class T, int LANES>
  static __device__ __forceinline__ void read_8(float (&v)[8], const float* tile, int from, int lane, int k) {
    read4(v, tile + T::at(from + row<T, LANES>(lane, 0), k));
    read4(v + 4, tile + T::at(from + row<T, LANES>(lane, 4), k));
  }
  template <class TileA, class TileB>
  __device__ __forceinline__ void step(const float* A, const float* B) {
#pragma unroll
    for (int k = 0; k < DEPTH; k += 4) {
      float a[8][4];                // [row][k]
      if (TileA::LIES_ALONG_K) {
#pragma unroll
        for (int r = 0; r < 8; r++) read4(a[r], A + TileA::at(m + row<TileA, 4>(lane_m, r), k));
      }
      if (TileB::LIES_ALONG_K) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
          float b[4];
          read4(b, B + TileB::at(n + row<TileB, 8>(lane_n, c), k));
#pragma unroll
          for (int e = 0; e < 4; e++)
#pragma unroll
            for (int r = 0; r < 8; r++) sum[r][c] += a[r][e] * b[e];
        }
      } else {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float ae[8], b[8];
          read_8<TileB, 8>(b, B, n, lane_n, k + e);
          if (!TileA::LIES_ALONG_K) read_8<TileA, 4>(ae, A, m, lane_m, k + e);
#pragma unroll
          for (int r = 0; r < 8 && TileA::LIES_ALONG_K; r++) ae[r] = a[r][e];
          multiply_add(sum, ae, b);
        }
      }
    }
  }
  template <class TileA, class TileB, int VECTOR, typename Map>
  __device__ __forceinline__ void store(const Map& map, int m0, int n0) const {
#pragma unroll
    for (int r = 0; r < 8; r++) {
      const int at = m0 + m + row<TileA, 4>(lane_m, r);
      if (at >= map.M) continue;
      if (TileB::LIES_ALONG_K) {    // 8 lanes write 8 neighbours
        float* out = map.out(at);
#pragma unroll
        for (int c = 0; c < 8; c++) {
          const int column = n0 + n + row<TileB, 8>(lane_n, c);
          if (column < map.N) out[column] = sum[r][c] + map.bias(column);
        }
      } else {
        write4<VECTOR>(map, at, n0 + n + row<TileB, 8>(lane_n, 0), &sum[r][0]);
        write4<VECTOR>(map, at, n0 + n + row<TileB, 8>(lane_n, 4), &sum[r][4]);
      }
    }
  }
};

#endif
