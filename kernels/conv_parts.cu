// conv_parts.cu: what stands around a convolution: adding up the parts of a sum that was cut, and a fourth channel for a stem of three.

// Idea        PARTS results of the same shape, one for each part of a sum that was cut, added in their order. A thread per number.
// Grid        1-D, a thread per number of the sum; neighbours read neighbours.
// Memory      (PARTS + 1) * SIZE * 4 bytes; the parts were written just before and mostly still lie in the L2 cache.
// Operations  PARTS - 1 additions per number. The order never changes, so neither do the bits.
// Share       not yet measured
// Parts may have WHOLE >= C channels: those beyond C were added by pad_channels and are dropped. bias (C numbers) may be null.
extern "C" __global__ void sum_in_order(const float* __restrict__ parts, const float* __restrict__ bias,
    float* __restrict__ sum, int PARTS, int SIZE, int C, int WHOLE) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= SIZE) return;
  const long long from = at / C * WHOLE + at % C, step = (long long)SIZE / C * WHOLE;
  float total = 0.f;
#pragma unroll 8
  for (int part = 0; part < PARTS; part++) total += parts[part * step + from];
  sum[at] = bias ? total + bias[at % C] : total;
}

// Idea        C channels become WHOLE, a multiple of 4, by zeros: then 16-byte loads fit. For images of 3 channels, where the copy
//             is small beside the output of the first convolution. A thread per pixel (or per cell of a filter).
// Memory      (C + WHOLE) * 4 bytes per pixel
// Share       not yet measured
extern "C" __global__ void pad_channels(const float* __restrict__ x, float* __restrict__ y, int PIXELS, int C, int WHOLE) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= PIXELS) return;
  for (int c = 0; c < WHOLE; c += 4) {
    float4 v;
    v.x = x[(long long)pixel * C + c];
    v.y = c + 1 < C ? x[(long long)pixel * C + c + 1] : 0.f;
    v.z = c + 2 < C ? x[(long long)pixel * C + c + 2] : 0.f;
    v.w = c + 3 < C ? x[(long long)pixel * C + c + 3] : 0.f;
    reinterpret_cast<float4*>(y)[(long long)pixel * (WHOLE / 4) + c / 4] = v;
  }
}
