// warp.h: barriers, shuffles and votes. They carry their place in the source, so that a thread which never comes can be named.
#pragma once

#define __syncthreads() minidl_barrier(__FILE__, __LINE__)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __trap() minidl_trap("__trap() was called", __FILE__, __LINE__)
#define assert(condition) ((condition) ? (void)0 : minidl_trap("assert(" #condition ") is false", __FILE__, __LINE__))

MINIDL_OURS static void minidl_complete_nothing(MinidlWarpCall**, unsigned) {}
MINIDL_OURS static inline void minidl_syncwarp(const char* file, int line, unsigned mask = ~0u) {
    MinidlWarpCall call = {MINIDL_SYNCWARP, mask, file, line, 0, 0, 0, nullptr};
    minidl_warp(&call, minidl_complete_nothing);
}
#define __syncwarp(...) minidl_syncwarp(__FILE__, __LINE__, ##__VA_ARGS__)

MINIDL_OURS static void minidl_complete_shuffle(MinidlWarpCall** lanes, unsigned mask) {
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            int source = lanes[lane]->source;  // from a lane that takes no part CUDA promises nothing: all ones, a NaN
            lanes[lane]->result = mask >> source & 1 ? lanes[source]->value : ~0ull;
        }
}
enum MinidlShuffle { MINIDL_INDEX_OF, MINIDL_DOWN, MINIDL_UP, MINIDL_XOR };

MINIDL_OURS static inline int minidl_source(int kind, int by, int width) {
    const int lane = minidl_lane(), within = lane & (width - 1), group = lane - within;
    if (kind == MINIDL_INDEX_OF) return group + (by & (width - 1));
    if (kind == MINIDL_DOWN) return within + by < width ? lane + by : lane;
    if (kind == MINIDL_UP) return within - by >= 0 ? lane - by : lane;
    return (lane ^ by) < group + width ? lane ^ by : lane;
}

template <class T>
MINIDL_OURS static inline T minidl_shuffle(const char* file, int line, int kind, unsigned mask, T value, int by, int width = 32) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    MinidlWarpCall call = {MINIDL_SHUFFLE, mask, file, line, 0, minidl_source(kind, by, width), 0, nullptr};
    memcpy(&call.value, &value, sizeof value);
    minidl_warp(&call, minidl_complete_shuffle);
    memcpy(&value, &call.result, sizeof value);
    return value;
}
#define __shfl_sync(...) minidl_shuffle(__FILE__, __LINE__, MINIDL_INDEX_OF, __VA_ARGS__)
#define __shfl_down_sync(...) minidl_shuffle(__FILE__, __LINE__, MINIDL_DOWN, __VA_ARGS__)
#define __shfl_up_sync(...) minidl_shuffle(__FILE__, __LINE__, MINIDL_UP, __VA_ARGS__)
#define __shfl_xor_sync(...) minidl_shuffle(__FILE__, __LINE__, MINIDL_XOR, __VA_ARGS__)

MINIDL_OURS static void minidl_complete_vote(MinidlWarpCall** lanes, unsigned mask) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++) if (mask >> lane & 1) votes |= (unsigned)lanes[lane]->value << lane;
    for (int lane = 0; lane < 32; lane++) if (mask >> lane & 1) lanes[lane]->result = votes;
}
MINIDL_OURS static inline unsigned minidl_vote(const char* file, int line, unsigned mask, bool yes) {
    MinidlWarpCall call = {MINIDL_VOTE, mask, file, line, yes, 0, 0, nullptr};
    minidl_warp(&call, minidl_complete_vote);
    return (unsigned)call.result;
}
#define __ballot_sync(mask, yes) minidl_vote(__FILE__, __LINE__, mask, (yes) != 0)
#define __any_sync(mask, yes) (minidl_vote(__FILE__, __LINE__, mask, (yes) != 0) != 0)
#define __all_sync(mask, yes) (minidl_vote(__FILE__, __LINE__, mask, (yes) == 0) == 0)
