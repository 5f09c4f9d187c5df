// on_cpu.h: lets g++ compile a CUDA C kernel file as it stands. Included in front of it; MINIDL_ON_CPU says so to wrappers
// of PTX. Blocks run one after another; every thread of a block is a fiber that leaves off only where it must wait.
#pragma once
#define MINIDL_ON_CPU 1
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>
#include "runtime.h"

// Ours: never instrumented by check mode, which would take us for the kernel.
#define MINIDL_OURS __attribute__((no_sanitize_thread, no_sanitize_undefined))

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One block at a time, so its shared memory can be static storage. It is all that lies in .bss: the runtime can fill it
// with NaN at the start of a block, and watch it. (`extern __shared__ T s[];` is rewritten before g++ sees it.)
#define __shared__ static
#define __constant__ static const
static const int warpSize = 32;

#include "vectors.h"
#include "maths.h"
#include "warp.h"
#include "tensor_core.h"
#include "exports.h"
