// One or four neighbouring floats moved at once. A kernel written for Pack<WIDTH> is two rungs in one: WIDTH 1 takes any
// size, WIDTH 4 moves 16 bytes per instruction and wants sizes and addresses that are multiples of it.
#pragma once

template <int WIDTH> struct Pack { float v[WIDTH]; };
template <> struct __align__(16) Pack<4> { float v[4]; };

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> load_pack(const float* from);
template <> __device__ __forceinline__ Pack<1> load_pack<1>(const float* from) { return {{*from}}; }
template <> __device__ __forceinline__ Pack<4> load_pack<4>(const float* from) {
  float4 a = *reinterpret_cast<const float4*>(from);
  return {{a.x, a.y, a.z, a.w}};
}

template <int WIDTH> __device__ __forceinline__ void store_pack(float* to, const Pack<WIDTH>& a);
template <> __device__ __forceinline__ void store_pack<1>(float* to, const Pack<1>& a) { *to = a.v[0]; }
template <> __device__ __forceinline__ void store_pack<4>(float* to, const Pack<4>& a) {
  *reinterpret_cast<float4*>(to) = make_float4(a.v[0], a.v[1], a.v[2], a.v[3]);
}

template <int WIDTH> __device__ __forceinline__ Pack<WIDTH> same_pack(float value) {
  Pack<WIDTH> a;
#pragma unroll
  for (int k = 0; k < WIDTH; k++) a.v[k] = value;
  return a;
}
