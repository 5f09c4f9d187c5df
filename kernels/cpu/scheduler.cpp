// scheduler.cpp: runs a grid block by block. Every CUDA thread is a fiber that runs until it must wait for others: at
// __syncthreads or in a warp operation. Where all wait for somebody who will never come, it says who waits where.
#include "fiber.h"
#include "faults.h"
#include "state.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct Worker { Fiber fiber; char* stack; Worker* next; };

// Plain globals, so that a debugger shows threadIdx; in one section, so that the checker knows its addresses.
#define INDEX_SECTION __attribute__((section("minidl_index"), visibility("default")))
INDEX_SECTION uint3 threadIdx, blockIdx;
INDEX_SECTION dim3 blockDim, gridDim;
INDEX_SECTION unsigned char* minidl_dynamic_shared;

Thread threads[MAX_THREADS];
int thread_count, current;
uint32_t block_serial, barrier_epoch;
unsigned char *static_begin, *static_end, *dynamic_begin, *dynamic_room;
size_t dynamic_bytes;
const MinidlImage* image;
bool checking;

static int waiting, done;                      // threads at the barrier, threads that have returned
static uint32_t arrived[MAX_WARPS], gone[MAX_WARPS];  // per warp: lanes in a warp operation, lanes that have returned
static int queue[2 * MAX_THREADS], queue_head, queue_length;
static Worker *running, *idle_workers;
static Fiber outside;                          // the caller of minidl_launch
static const MinidlLaunch* launch;
static MinidlReport* failure;
static void (*run_thread)(void*);
static void* context;
static uint64_t random_state;

// ---------------------------------------------------------------- reports
MinidlReport* report(int kind, const void* pc) {
    static MinidlReport ignored;  // a second fault on the way out
    if (failure->kind != MINIDL_OK) return &ignored;
    failure->kind = kind;
    failure->region = MINIDL_NOWHERE;
    failure->other_thread = -2;
    failure->pc = pc ? (uint64_t)((const unsigned char*)pc - image->base) - 1 : 0;  // the call, not what follows it
    const uint3 &b = blockIdx, &t = threads[current].index;
    unsigned *fb = failure->block, *ft = failure->thread;
    fb[0] = b.x, fb[1] = b.y, fb[2] = b.z, ft[0] = t.x, ft[1] = t.y, ft[2] = t.z;
    return failure;
}

void take_back() { memset(failure, 0, sizeof *failure); }
void put_back(const MinidlReport& r) {
    if (failure->kind == MINIDL_OK) *failure = r;
}

static void add_text(const char* format, ...) {
    size_t used = strlen(failure->text);
    va_list values;
    va_start(values, format);
    vsnprintf(failure->text + used, sizeof failure->text - used, format, values);
    va_end(values);
}

void leave() {
    fiber_jump(&running->fiber, &outside);
    __builtin_unreachable();  // nobody resumes a fiber of a launch that failed
}

bool below_own_stack(const void* address) {
    return running && (const char*)address >= running->stack - STACK_GAP && (const char*)address < running->stack;
}

bool on_own_stack(const void* address) {
    return running && (const char*)address >= running->stack && (const char*)address < running->stack + STACK;
}

// ---------------------------------------------------------------- the ready queue
static inline void push(int thread) { queue[(queue_head + queue_length++) % (2 * MAX_THREADS)] = thread; }
static inline void push_front(int thread) {
    queue_head = (queue_head + 2 * MAX_THREADS - 1) % (2 * MAX_THREADS);
    queue[queue_head] = thread, queue_length++;
}
static inline int pop() {
    if (!queue_length) return -1;
    if (launch->order == 2) {
        random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
        int other = (queue_head + (random_state >> 33) % queue_length) % (2 * MAX_THREADS), thread = queue[other];
        queue[other] = queue[queue_head], queue[queue_head] = thread;
    }
    int thread = queue[queue_head];
    queue_head = (queue_head + 1) % (2 * MAX_THREADS), queue_length--;
    return thread;
}
static void push_all() {
    if (launch->order == 1) for (int t = thread_count - 1; t >= 0; t--) push(t);
    else for (int t = 0; t < thread_count; t++) push(t);
}

// ---------------------------------------------------------------- who runs next
static inline bool same_file(const char* a, const char* b) { return a == b || !strcmp(a, b); }

static void report_nobody_can_go_on() {
    int barrier = -1, warp = -1, left = -1, barriers = 0, warps = 0;
    for (int t = 0; t < thread_count; t++) {
        if (threads[t].state == AT_BARRIER) barriers++, barrier = barrier < 0 ? t : barrier;
        if (threads[t].state == IN_WARP) warps++, warp = warp < 0 ? t : warp;
        if (threads[t].state == DONE) left = t;
    }
    int shown = warp >= 0 ? warp : barrier;
    current = shown;
    MinidlReport* r = report(warp >= 0 ? MINIDL_WARP : MINIDL_DIVERGENT);
    r->file = warp >= 0 ? threads[warp].call->file : threads[barrier].file;
    r->line = warp >= 0 ? threads[warp].call->line : threads[barrier].line;
    if (barriers) {
        const Thread& t = threads[barrier];
        add_text("%d threads wait at __syncthreads, %s:%d, thread (%u, %u, %u) for one\n", barriers, t.file, t.line, t.index.x,
                 t.index.y, t.index.z);
    }
    if (warps) {
        const Thread& t = threads[warp];
        add_text("%d threads wait in a warp operation with mask 0x%08x, %s:%d, thread (%u, %u, %u) for one\n", warps, t.call->mask,
                 t.call->file, t.call->line, t.index.x, t.index.y, t.index.z);
    }
    const uint3& gone_one = threads[left < 0 ? 0 : left].index;
    if (done) add_text("%d threads have returned, thread (%u, %u, %u) for one\n", done, gone_one.x, gone_one.y, gone_one.z);
}

// Everybody who has not returned is at a barrier: let them through, if it is the same one and nobody is missing.
static bool release_barrier() {
    if (!waiting || waiting + done != thread_count) return false;
    if (done) return report_nobody_can_go_on(), false;
    for (int t = 1; t < thread_count; t++)
        if (threads[t].line != threads[0].line || !same_file(threads[t].file, threads[0].file)) {
            current = t;
            MinidlReport* r = report(MINIDL_DIVERGENT);
            const uint3& first = threads[0].index;
            r->file = threads[t].file, r->line = threads[t].line;
            add_text("this thread waits at __syncthreads, %s:%d\nthread (%u, %u, %u) waits at another one, %s:%d\n", r->file, r->line,
                     first.x, first.y, first.z, threads[0].file, threads[0].line);
            return false;
        }
    if (checking && (checker_verdict(), failure->kind)) return false;
    for (int t = 0; t < thread_count; t++) threads[t].state = READY;
    waiting = 0, barrier_epoch++;
    push_all();
    return true;
}

// The thread to run now, or -1: the block is done, or the launch has failed.
static int next_thread() {
    if (failure->kind) return -1;
    int thread = pop();
    if (thread < 0 && release_barrier()) thread = pop();
    if (thread < 0 && !failure->kind && done < thread_count) report_nobody_can_go_on();
    return failure->kind ? -1 : thread;
}

static inline void enter(int thread) {
    current = thread;
    threadIdx = threads[thread].index;
    threads[thread].state = RUNNING;
}

// A worker is a stack that runs one CUDA thread after another; it is parked while its thread waits.
static void worker_loop() {
    for (;;) {
        threads[current].worker = running;
        run_thread(context);
        threads[current].state = DONE, done++, gone[current / 32] |= 1u << current % 32;
        int next = next_thread();
        if (next >= 0 && threads[next].state == FRESH) {  // the same stack will do: no jump at all
            enter(next);
            continue;
        }
        Worker* self = running;
        self->next = idle_workers, idle_workers = self;
        if (next < 0) fiber_jump(&self->fiber, &outside);
        else enter(next), running = threads[next].worker, fiber_jump(&self->fiber, &running->fiber);
    }
}

static Worker* all_workers[MAX_THREADS + 1];
static int worker_count;

static Worker* get_worker() {
    if (idle_workers) {
        Worker* worker = idle_workers;
        idle_workers = worker->next;
        return worker;
    }
    char* room = (char*)mmap(nullptr, STACK_GAP + STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) abort();
    mprotect(room + STACK_GAP, STACK, PROT_READ | PROT_WRITE);  // a stack that is too deep faults below
    Worker* worker = (Worker*)calloc(1, sizeof(Worker));
    worker->stack = room + STACK_GAP;
    // Tops at different offsets within a page: stacks that all begin alike would fight for the same few lines of the cache.
    fiber_start(&worker->fiber, worker->stack, STACK - worker_count % 16 * 256, worker_loop);
    return all_workers[worker_count++] = worker;
}

// After a failed launch the fibers are somewhere inside the kernel: begin them anew.
static void restart_workers() {
    idle_workers = nullptr;
    for (int w = 0; w < worker_count; w++) {
        fiber_start(&all_workers[w]->fiber, all_workers[w]->stack, STACK - w % 16 * 256, worker_loop);
        all_workers[w]->next = idle_workers, idle_workers = all_workers[w];
    }
}

// The current thread has to wait: run somebody else until it can go on.
static void wait_here() {
    int self_thread = current, next = next_thread();
    if (next == self_thread) return enter(next);
    if (next < 0) leave();
    Worker* self = running;
    bool fresh = threads[next].state == FRESH;
    enter(next);
    running = fresh ? get_worker() : threads[next].worker;
    fiber_jump(&self->fiber, &running->fiber);
}

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void minidl_barrier(const char* file, int line) {
    Thread& thread = threads[current];
    thread.state = AT_BARRIER, thread.file = file, thread.line = line, waiting++;
    wait_here();
}

EXPORTED int minidl_lane() { return current % 32; }

EXPORTED void minidl_trap(const char* what, const char* file, int line) {
    MinidlReport* r = report(MINIDL_TRAP);
    r->file = file, r->line = line;
    add_text("%s\n", what);
    leave();
}

static void warp_fault(const MinidlWarpCall* call, const char* format, int lane) {
    MinidlReport* r = report(MINIDL_WARP);
    r->file = call->file, r->line = call->line;
    add_text(format, lane, call->mask);
    leave();
}

EXPORTED void minidl_warp(MinidlWarpCall* call, MinidlComplete complete) {
    const int warp = current / 32, lane = current % 32, first = warp * 32;
    const int lanes = thread_count - first < 32 ? thread_count - first : 32;
    const unsigned there = lanes == 32 ? ~0u : (1u << lanes) - 1, mask = call->mask & there;
    Thread& thread = threads[current];
    if (!(mask >> lane & 1)) warp_fault(call, "lane %d is not in its own mask 0x%08x\n", lane);
    if (gone[warp] & mask) warp_fault(call, "lane %d stands in the mask 0x%08x and has returned\n", __builtin_ctz(gone[warp] & mask));
    thread.call = call, thread.state = IN_WARP, arrived[warp] |= 1u << lane;
    if ((arrived[warp] & mask) != mask) return wait_here();
    MinidlWarpCall* calls[32] = {};
    for (int l = 0; l < lanes; l++) if (mask >> l & 1) {
        calls[l] = threads[first + l].call;
        bool same = calls[l]->mask == call->mask && calls[l]->op == call->op && calls[l]->line == call->line;
        // Another operation: wait. If they never meet, nobody can go on, and that is reported.
        if (!same || !same_file(calls[l]->file, call->file)) return wait_here();
    }
    arrived[warp] &= ~mask;
    complete(calls, mask);
    if (checking && call->op == MINIDL_SYNCWARP) checker_sync_warp(warp, mask);
    // In orders 0 and 1 a warp runs ahead as far as it can: the schedule least kind to a missing __syncthreads.
    for (int l = lanes - 1; l >= 0; l--) if ((mask >> l & 1) && l != lane) {
        threads[first + l].state = READY;
        launch->order == 2 ? push(first + l) : push_front(first + l);
    }
    thread.state = RUNNING;
}

// ---------------------------------------------------------------- launching
static void run_block(uint64_t number, uint64_t blocks) {
    const unsigned *grid = launch->grid, *block = launch->block;
    if (launch->order) number = blocks - 1 - number;
    blockIdx = {(unsigned)(number % grid[0]), (unsigned)(number / grid[0] % grid[1]), (unsigned)(number / grid[0] / grid[1])};
    block_serial++, barrier_epoch = 0, waiting = done = queue_head = queue_length = 0;
    memset(arrived, 0, sizeof arrived), memset(gone, 0, sizeof gone);
    // 0xff bytes are NaN and −1: nobody reads zeros that nobody wrote. A file of many kernels has much static storage,
    // of which this kernel uses a part: then the first blocks are enough.
    if (static_end - static_begin <= 64 << 10 || number < 4 || checking) memset(static_begin, 0xff, static_end - static_begin);
    memset(dynamic_begin, 0xff, dynamic_bytes);
    copies_begin_block();
    if (checking) checker_begin_block();
    for (int t = 0; t < thread_count; t++) threads[t].state = FRESH;
    push_all();
    enter(pop());
    running = get_worker();
    fiber_jump(&outside, &running->fiber);
    if (checking) checker_verdict();
}

static bool refused() {
    const unsigned *grid = launch->grid, *block = launch->block;
    uint64_t count = (uint64_t)block[0] * block[1] * block[2];
    const int limit = launch->max_threads && launch->max_threads < MAX_THREADS ? launch->max_threads : MAX_THREADS;
    const char* from = launch->max_threads ? " (__launch_bounds__)" : "";
    if (!count || count > (uint64_t)limit || block[2] > 64)
        report(MINIDL_BAD_LAUNCH), add_text("block (%u, %u, %u) has %llu threads, the limit is %d%s\n", block[0], block[1],
            block[2], (unsigned long long)count, limit, from);
    else if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 2147483647u || grid[1] > 65535 || grid[2] > 65535)
        report(MINIDL_BAD_LAUNCH), add_text("grid (%u, %u, %u): each size is at least 1, at most 2147483647, 65535, 65535\n",
            grid[0], grid[1], grid[2]);
    else if (launch->shared_bytes > MAX_SHARED)
        report(MINIDL_BAD_LAUNCH), add_text("dynamic shared memory of %zu bytes, the limit is %zu\n", launch->shared_bytes, MAX_SHARED);
    return failure->kind != MINIDL_OK;
}

static void prepare() {
    const unsigned* block = launch->block;
    thread_count = block[0] * block[1] * block[2];
    for (int t = 0; t < thread_count; t++) threads[t].index = {t % block[0], t / block[0] % block[1], t / block[0] / block[1]};
    if (!dynamic_room) {
        dynamic_room = (unsigned char*)mmap(nullptr, DYNAMIC_ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(dynamic_room + DYNAMIC_ROOM, PAGE, PROT_NONE);
    }
    dynamic_bytes = launch->shared_bytes;  // ends where an unmapped page begins
    minidl_dynamic_shared = dynamic_begin = dynamic_room + DYNAMIC_ROOM - (dynamic_bytes + 15) / 16 * 16;
    static_begin = image->shared_begin, static_end = image->shared_end;
    blockDim = {block[0], block[1], block[2]}, gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    random_state = launch->seed * 2 + 0x9e3779b97f4a7c15u;
    checking = launch->check;
    if (checking) checker_begin_launch();
}

EXPORTED int minidl_launch(void (*run)(void*), void* arguments, const MinidlLaunch* how, const MinidlImage* kernel, MinidlReport* result) {
    memset(result, 0, sizeof *result);
    launch = how, image = kernel, failure = result, run_thread = run, context = arguments, thread_count = current = 0;
    blockIdx = {}, threads[0].index = {};
    if (refused()) return result->kind;
    prepare();
    Handlers saved;
    install_handlers(&saved);
    const uint64_t float_mode = flush_subnormals(), blocks = (uint64_t)how->grid[0] * how->grid[1] * how->grid[2];
    if (!sigsetjmp(after_fault, 1))
        for (uint64_t number = 0; number < blocks && !result->kind; number++) run_block(number, blocks);
    restore_float_mode(float_mode);
    uninstall_handlers(&saved);
    if (result->kind) restart_workers();
    checking = false, running = nullptr;
    return result->kind;
}
