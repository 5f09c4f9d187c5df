// state.h: what the parts of the runtime share: the threads of the block that runs now, and how to report a fault.
#pragma once
#include "runtime.h"

enum ThreadState : uint8_t { FRESH, READY, RUNNING, AT_BARRIER, IN_WARP, DONE };
struct Worker;

struct Thread {
    Worker* worker;
    uint3 index;
    ThreadState state;
    int line;  // where it waits
    const char* file;
    MinidlWarpCall* call;
};

static const int MAX_THREADS = 1024, MAX_WARPS = 32, MAX_ARRAYS = 64;
static const size_t STACK = 128 << 10, MAX_SHARED = 227 << 10;  // 227 KiB: what a block may have on sm_80 (163) to sm_90 (227)

static const size_t STACK_GAP = 4 << 20;  // unmapped, below each stack; a GPU gives a thread at most 512 KiB of local memory
static const size_t PAGE = 4096, DYNAMIC_ROOM = (MAX_SHARED + PAGE - 1) / PAGE * PAGE;  // behind it an unmapped page

extern Thread threads[MAX_THREADS];
extern int thread_count, current;    // of the block that runs now; `current` is a linear index
extern uint32_t block_serial;        // counts blocks over all launches, so that stale marks never look fresh
extern uint32_t barrier_epoch;       // counts barriers within the block
extern unsigned char *static_begin, *static_end, *dynamic_begin, *dynamic_room;
extern size_t dynamic_bytes;
extern const MinidlImage* image;
extern bool checking;

struct Array { unsigned char* begin; size_t bytes; int read_only, region; };  // region: arrays that overlap share one
extern Array arrays[MAX_ARRAYS];
extern int array_count;

// Fill in the report of this launch (the first one counts) and leave the kernel for good.
MinidlReport* report(int kind, const void* pc = nullptr);
[[noreturn]] void leave();
void take_back();                   // the report just made: it may not be the whole story
void put_back(const MinidlReport&); // it is
void locate(MinidlReport*, const unsigned char* address);  // region, offset, size
bool lies_elsewhere(const void* address, size_t bytes);
bool on_own_stack(const void* address);
bool below_own_stack(const void* address);  // where local arrays end up that do not fit it

void checker_begin_launch();
void checker_sync_warp(int warp, unsigned mask);
void checker_begin_block();
void checker_verdict();  // at a barrier and at the end of a block
void copies_begin_block();
void check_access(const void* address, size_t bytes, bool write, bool atomic, const void* pc, const char* file = nullptr, int line = 0);
void check_copy_issued(const void* shared, size_t bytes, const void* pc, const char* file, int line);
void check_copy_landed(const void* shared, size_t bytes, const void* pc, const char* file, int line);
