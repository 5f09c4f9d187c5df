// runtime.h: what a compiled kernel and the runtime (scheduler.cpp, checker.cpp, memory.cpp) know of each other.
// A kernel file compiled for the CPU is one shared library; the runtime is another, built once and never instrumented.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

enum MinidlWarpOp { MINIDL_SHUFFLE, MINIDL_VOTE, MINIDL_SYNCWARP, MINIDL_MMA, MINIDL_LDMATRIX };

// One lane's part of an operation that the lanes of a warp do together. The last lane to arrive completes it for all.
struct MinidlWarpCall {
    int op;
    unsigned mask;
    const char* file;
    int line;
    uint64_t value;   // what this lane gives
    int source;       // the lane it reads from (shuffles)
    uint64_t result;  // what it gets
    void* extra;      // registers of this lane (mma, ldmatrix)
};
typedef void (*MinidlComplete)(MinidlWarpCall** lanes, unsigned mask);

// What Python hands over for one launch, and what it gets back when something went wrong.
struct MinidlLaunch {
    unsigned grid[3], block[3];
    size_t shared_bytes;
    int order;        // 0 forward, 1 reverse, 2 random
    int check;
    int max_threads;  // of __launch_bounds__, or 0
    uint64_t seed;
    void** arguments;
};

struct MinidlReport {
    int kind;              // MinidlKind
    int write, bytes;      // of the access that failed
    int region;            // number of the array argument, or MINIDL_STATIC, MINIDL_DYNAMIC, MINIDL_NOWHERE
    int64_t offset, size;  // in bytes: where in the region, and how large that is
    uint64_t pc, other_pc; // addresses relative to the kernel's library, for addr2line; 0 if unknown
    int other_thread;      // linear index of the thread the access collides with; -1 several, -2 none
    int other_write, other_block;
    const char* file;      // where the source line is known without looking up pc
    int line;
    unsigned block[3], thread[3];
    char text[1024];       // facts, one a line
};

enum MinidlKind {
    MINIDL_OK, MINIDL_BAD_LAUNCH, MINIDL_BOUNDS, MINIDL_MISALIGNED, MINIDL_RACE, MINIDL_UNINITIALISED, MINIDL_READ_ONLY,
    MINIDL_IN_FLIGHT, MINIDL_DIVERGENT, MINIDL_WARP, MINIDL_INDEX, MINIDL_OVERFLOW, MINIDL_FAULT, MINIDL_STACK,
    MINIDL_ARITHMETIC, MINIDL_INTERRUPTED, MINIDL_TRAP
};
enum { MINIDL_STATIC = -1, MINIDL_DYNAMIC = -2, MINIDL_NOWHERE = -3 };

// A kernel's library: where its code and its shared memory lie.
struct MinidlImage { unsigned char *base, *shared_begin, *shared_end; };

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern unsigned char* minidl_dynamic_shared;
int minidl_launch(void (*run_thread)(void*), void* context, const MinidlLaunch*, const MinidlImage*, MinidlReport*);
void minidl_barrier(const char* file, int line);
void minidl_warp(MinidlWarpCall*, MinidlComplete);
int minidl_lane();
void minidl_atomic(void* address, unsigned bytes);
void minidl_read(const void* address, unsigned bytes, const char* file, int line);
void minidl_copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, const char* file, int line);
void minidl_copy_commit();
void minidl_copy_wait(unsigned groups_left);
void minidl_trap(const char* what, const char* file, int line);
}
