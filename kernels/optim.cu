// One step of SGD or Adam for all parameters in one launch. A network has a hundred small parameters: a launch for each would
// cost more than the work. So the pointers stand in a table on the device, and every block knows its piece of the whole.
//
//     table (P, 5) of addresses in bytes, counted from `base` (null on a GPU, so that they are plain addresses): parameter,
//         gradient, and up to three more (velocity; mean, square, largest); NONE where there is none
//     pieces (B, 3): which parameter, its first element, how many; block b does piece b
//     numbers (P, NUMBERS): the settings of each parameter, in 64 bits, so that groups and steps may differ
//
// Thread by thread the rules are those of minidl/optim/sgd.py and adam.py, in 32 bits. In place: nothing else may hold the arrays.
// Four numbers at a time where the addresses allow it. Operations: about 10 per element, the rest is waiting for memory.
#include "pack.cuh"

#define NONE 0xffffffffffffffffull

// A pointer to pointers is no parameter that a launcher could check; whole numbers are.
__device__ __forceinline__ float* array_at(float* base, const unsigned long long* table, long long parameter, int which) {
  unsigned long long offset = table[parameter * 5 + which];
  return offset == NONE ? nullptr : reinterpret_cast<float*>(reinterpret_cast<unsigned long long>(base) + offset);
}

__device__ __forceinline__ bool aligned(const float* p) { return (reinterpret_cast<unsigned long long>(p) & 15) == 0; }

struct SgdRule { float lr, momentum, weight_decay, share, sign; bool nesterov; };

__device__ __forceinline__ void sgd(float& p, float g, float& v, bool remembers, const SgdRule& rule) {
  g = rule.sign * g + rule.weight_decay * p;
  if (remembers) {
    v = rule.momentum * v + rule.share * g;
    g = rule.nesterov ? g + rule.momentum * v : v;
  }
  p -= rule.lr * g;
}

// The idea: SGD for all parameters in one launch. numbers: lr, momentum, weight_decay, share of the new gradient (1 − dampening,
// 1 the first time), sign (−1 to maximise), nesterov.
// Bytes per element: 12 (read p and g, write p), 20 with momentum. Share of the copy rate: not yet measured.   grid (B)
extern "C" __global__ void sgd_all_parameters(float* base, const unsigned long long* __restrict__ table,
                                              const long long* __restrict__ pieces, const double* __restrict__ numbers) {
  long long parameter = pieces[blockIdx.x * 3], first = pieces[blockIdx.x * 3 + 1], count = pieces[blockIdx.x * 3 + 2];
  const double* n = numbers + parameter * 6;
  SgdRule rule = {(float)n[0], (float)n[1], (float)n[2], (float)n[3], (float)n[4], n[5] != 0.0};
  float *p = array_at(base, table, parameter, 0) + first, *v = array_at(base, table, parameter, 2);
  const float* g = array_at(base, table, parameter, 1) + first;
  bool remembers = v != nullptr;
  if (remembers) v += first;
  bool wide = aligned(p) && aligned(g) && aligned(v);
  long long packed = wide ? count / 4 * 4 : 0;
  for (long long k = threadIdx.x * 4; k < packed; k += blockDim.x * 4) {
    Pack<4> ps = load_pack<4>(p + k), gs = load_pack<4>(g + k), vs = remembers ? load_pack<4>(v + k) : same_pack<4>(0.0f);
#pragma unroll
    for (int i = 0; i < 4; i++) sgd(ps.v[i], gs.v[i], vs.v[i], remembers, rule);
    store_pack<4>(p + k, ps);
    if (remembers) store_pack<4>(v + k, vs);
  }
  for (long long k = packed + threadIdx.x; k < count; k += blockDim.x) {
    float unused = 0.0f;
    sgd(p[k], g[k], remembers ? v[k] : unused, remembers, rule);
  }
}

struct AdamRule { float step, new_mean, beta2, new_square, eps, weight_decay, shrink, root, sign; };

__device__ __forceinline__ void adam(float& p, float g, float& mean, float& square, float* largest, const AdamRule& rule) {
  p *= rule.shrink;  // AdamW: 1 − lr · weight_decay; Adam: 1
  g = rule.sign * g + rule.weight_decay * p;
  mean += (g - mean) * rule.new_mean;
  square = square * rule.beta2 + g * g * rule.new_square;
  float seen = square;
  if (largest) seen = *largest = *largest >= square ? *largest : square;  // a NaN goes on
  p -= mean / (sqrtf(seen) / rule.root + rule.eps) * rule.step;
}

// The idea: Adam and AdamW for all parameters in one launch, amsgrad where the fifth address is given. numbers: lr / seen₁,
// 1 − β₁, β₂, 1 − β₂, eps, weight_decay, shrink, √seen₂, sign.
// Bytes per element: 28 (read p, g, m, v; write p, m, v). Share of the copy rate: not yet measured.   grid (B)
extern "C" __global__ void adam_all_parameters(float* base, const unsigned long long* __restrict__ table,
                                               const long long* __restrict__ pieces, const double* __restrict__ numbers) {
  long long parameter = pieces[blockIdx.x * 3], first = pieces[blockIdx.x * 3 + 1], count = pieces[blockIdx.x * 3 + 2];
  const double* n = numbers + parameter * 9;
  AdamRule rule = {(float)n[0], (float)n[1], (float)n[2], (float)n[3], (float)n[4], (float)n[5], (float)n[6], (float)n[7], (float)n[8]};
  float *p = array_at(base, table, parameter, 0) + first, *mean = array_at(base, table, parameter, 2) + first;
  float *square = array_at(base, table, parameter, 3) + first, *largest = array_at(base, table, parameter, 4);
  const float* g = array_at(base, table, parameter, 1) + first;
  if (largest) largest += first;
  bool wide = aligned(p) && aligned(g) && aligned(mean) && aligned(square) && aligned(largest);
  long long packed = wide ? count / 4 * 4 : 0;
  for (long long k = threadIdx.x * 4; k < packed; k += blockDim.x * 4) {
    Pack<4> ps = load_pack<4>(p + k), gs = load_pack<4>(g + k), means = load_pack<4>(mean + k), squares = load_pack<4>(square + k);
    Pack<4> most = largest ? load_pack<4>(largest + k) : same_pack<4>(0.0f);
#pragma unroll
    for (int i = 0; i < 4; i++) adam(ps.v[i], gs.v[i], means.v[i], squares.v[i], largest ? &most.v[i] : nullptr, rule);
    store_pack<4>(p + k, ps);
    store_pack<4>(mean + k, means);
    store_pack<4>(square + k, squares);
    if (largest) store_pack<4>(largest + k, most);
  }
  for (long long k = packed + threadIdx.x; k < count; k += blockDim.x)
    adam(p[k], g[k], mean[k], square[k], largest ? largest + k : nullptr, rule);
}
