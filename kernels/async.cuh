// async.cuh: cp.async, copies from global to shared memory that go on while the thread computes (sm_80 and later).
//
//   start_copy<4>(shared, global);               // 4 floats, 16-byte aligned; global = nullptr writes zeros
//   close_group();
//   wait_for_groups<1>();                        // all groups but the newest 1 have arrived (for this thread: a barrier follows)
//
// On the CPU a copy happens at the wait that guarantees it and not a moment before, so a forgotten wait reads what was there
// before, and the tests see it.
#ifndef MINIDL_ASYNC_CUH
#define MINIDL_ASYNC_CUH

template <int FLOATS>
__device__ __forceinline__ void start_copy(float* shared, const float* global) {
  const int bytes = global ? 4 * FLOATS : 0;                       // the rest of the 4 * FLOATS is filled with zeros
#ifdef MINIDL_ON_CPU
  cpu_copy_async(shared, global, 4 * FLOATS, bytes);
#else
  const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  if constexpr (FLOATS == 4) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ void close_group() {
#ifdef MINIDL_ON_CPU
  cpu_copy_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int LEFT>
__device__ __forceinline__ void wait_for_groups() {
#ifdef MINIDL_ON_CPU
  cpu_copy_wait(LEFT);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

#endif
