// checker.cpp: check mode. The kernel is compiled with -fsanitize=thread, which calls __tsan_readN and __tsan_writeN before
// every access to memory that others can see. libtsan is not linked: these functions are ours, and they know CUDA's rules:
// which accesses a barrier orders, what a block shares, what was never written, where arrays end.
#include "state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Who touched four bytes last. One Mark of the last write and one of the last reads stand for each four bytes of memory.
struct Mark {
    uint32_t block, epoch;  // block_serial (0: nobody), barrier_epoch
    uint32_t sync;          // the warp's count of __syncwarp at that time
    uint32_t pc;
    uint32_t lanes;         // reads: the lanes of that warp that read since the last write that orders them
    uint16_t thread;
    uint8_t bytes;          // which of the four
    uint8_t flags;
};
enum { ATOMIC = 1, MANY_WARPS = 2, MANY_BLOCKS = 4, IN_FLIGHT = 8 };
struct Cell { Mark write, read; };

static Cell *cells[MAX_ARRAYS], *static_cells, *dynamic_cells;
static size_t static_cells_bytes;

// __syncwarp orders lanes: knows[w][l][m] = n says that lane l knows what lane m did before the n-th __syncwarp of warp w.
static uint32_t syncs[MAX_WARPS], knows[MAX_WARPS][32][32];

void checker_sync_warp(int warp, unsigned mask) {
    uint32_t now = ++syncs[warp], joined[32] = {};
    for (int l = 0; l < 32; l++) if (mask >> l & 1)
        for (int m = 0; m < 32; m++) if (knows[warp][l][m] > joined[m]) joined[m] = knows[warp][l][m];
    for (int m = 0; m < 32; m++) if (mask >> m & 1) joined[m] = now;
    for (int l = 0; l < 32; l++) if (mask >> l & 1) memcpy(knows[warp][l], joined, sizeof joined);
}

static Cell* fresh_cells(Cell* old, size_t bytes) {
    free(old);
    return (Cell*)calloc(bytes / 4 + 2, sizeof(Cell));
}

void checker_begin_launch() {
    size_t bytes = static_end - static_begin;
    if (bytes > static_cells_bytes || !static_cells) static_cells = fresh_cells(static_cells, static_cells_bytes = bytes);
    if (!dynamic_cells) dynamic_cells = fresh_cells(nullptr, MAX_SHARED);
    for (int region = 0; region < MAX_ARRAYS; region++) free(cells[region]), cells[region] = nullptr;
    for (int a = 0; a < array_count; a++) {  // arrays that overlap share the cells of the largest span
        size_t span = 0;
        for (int b = 0; b < array_count; b++)
            if (arrays[b].region == arrays[a].region) {
                const size_t end = arrays[b].begin + arrays[b].bytes - arrays[arrays[a].region].begin;
                if (end > span) span = end;
            }
        if (!cells[arrays[a].region]) cells[arrays[a].region] = fresh_cells(nullptr, span + 8);
    }
}

static MinidlReport unwritten;  // the first read of shared memory that nobody had written

void checker_begin_block() { unwritten.kind = MINIDL_OK; }  // marks carry the number of their block: no clearing

// Does something order that earlier access before what the current thread does now?
static bool ordered(const Mark& mark) {
    if (mark.block != block_serial) return false;  // nothing orders blocks
    if (mark.epoch != barrier_epoch) return true;
    const int warp = current / 32;
    if ((mark.flags & MANY_WARPS) || mark.thread / 32 != warp) return false;
    for (int lane = 0; lane < 32; lane++)
        if ((mark.lanes >> lane & 1) && lane != current % 32 && knows[warp][current % 32][lane] <= mark.sync) return false;
    return true;
}

static Mark stamp(uint8_t bytes, uint32_t pc, uint8_t flags) {
    return {block_serial, barrier_epoch, syncs[current / 32], pc, 1u << current % 32, (uint16_t)current, bytes, flags};
}

struct Access {
    bool write, atomic, shared;
    const unsigned char* address;
    size_t bytes;
    const void* pc;
    const char* file;
    int line;
};

static MinidlReport* fault(int kind, const Access& access, const unsigned char* address) {
    MinidlReport* r = report(kind, access.pc);
    locate(r, address);
    r->write = access.write, r->bytes = access.bytes, r->file = access.file, r->line = access.line;
    return r;
}

[[noreturn]] static void collision(int kind, const Access& access, const unsigned char* address, const Mark& other, bool other_wrote) {
    MinidlReport* r = fault(kind, access, address);
    const bool many = (other.flags & (MANY_WARPS | MANY_BLOCKS)) || (other.lanes & (other.lanes - 1));
    r->other_thread = many ? -1 : other.thread, r->other_write = other_wrote, r->other_pc = other.pc;
    r->other_block = other.block != block_serial;
    leave();
}

// A read of what nobody has written. If somebody writes it before the next barrier, then it is a race, and will be reported
// as one; so the verdict waits until then.
static void note_unwritten(const Access& access, const unsigned char* address) {
    if (!unwritten.kind) unwritten = *fault(MINIDL_UNINITIALISED, access, address), take_back();
}

void checker_verdict() {
    if (unwritten.kind) put_back(unwritten);
}

static void note_read(Cell& cell, const Mark& now) {
    Mark& old = cell.read;
    const bool same_block = old.block == block_serial, same_epoch = same_block && old.epoch == barrier_epoch;
    const uint8_t keep = same_block ? old.flags & MANY_BLOCKS : old.block ? MANY_BLOCKS : 0;
    if (same_epoch && !ordered(old)) {  // both reads must be ordered before any write to come
        if (old.thread / 32 != current / 32) old.flags |= MANY_WARPS;
        else old.lanes |= now.lanes, old.sync = now.sync, old.thread = now.thread;
        old.bytes |= now.bytes, old.pc = now.pc;
    } else {
        const uint8_t bytes = same_epoch ? old.bytes | now.bytes : now.bytes;
        old = now, old.bytes = bytes, old.flags = keep;
    }
}

// Four bytes of memory are touched.
static void touch(Cell& cell, uint8_t bytes, const Access& access, const unsigned char* address, uint32_t pc) {
    if (access.shared) {  // a block begins with nothing written
        if (cell.write.block != block_serial) cell.write = {};
        if (cell.read.block != block_serial) cell.read = {};
    }
    const Mark &write = cell.write, &read = cell.read;
    if (write.flags & IN_FLIGHT && write.block) collision(MINIDL_IN_FLIGHT, access, address, write, true);
    if (!access.write && access.shared && (write.bytes & bytes) != bytes) note_unwritten(access, address);
    if (write.block && (write.bytes & bytes) && !(access.atomic && write.flags & ATOMIC) && !ordered(write))
        collision(MINIDL_RACE, access, address, write, true);
    if (!access.write) return note_read(cell, stamp(bytes, pc, 0));
    if (read.block && (read.bytes & bytes) && (read.flags & MANY_BLOCKS || !ordered(read)))
        collision(MINIDL_RACE, access, address, read, false);
    // Who wrote the other bytes of the four is forgotten (no false alarm comes of it); that they were written is not.
    uint8_t before = access.shared ? write.bytes : 0;
    cell.write = stamp(bytes, pc, access.atomic ? ATOMIC : 0);
    cell.write.bytes |= before;
}

struct Place {
    unsigned char *begin, *end, *origin;
    Cell* cells;
    bool shared, read_only;
    Cell& cell(const void* address) const { return cells[(uintptr_t)address / 4 - (uintptr_t)origin / 4]; }
};

// Where an address lies, or false: nowhere that this kernel may touch.
static bool find(const unsigned char* address, size_t bytes, bool write, Place* place) {
    if (address >= static_begin && address < static_end)
        return *place = {static_begin, static_end, static_begin, static_cells, true, false}, true;
    if (address >= dynamic_begin && address < dynamic_room + DYNAMIC_ROOM + PAGE)
        return *place = {dynamic_begin, dynamic_begin + dynamic_bytes, dynamic_begin, dynamic_cells, true, false}, true;
    static int last;
    for (int n = 0, a = last < array_count ? last : 0; n < array_count; n++, a = a + 1 < array_count ? a + 1 : 0) {
        const Array& array = arrays[a];
        if (address < array.begin || address >= array.begin + array.bytes) continue;
        if (write && array.read_only && n + 1 < array_count) {  // the same memory may also be given as a writable array
            bool elsewhere = false;
            for (int b = 0; b < array_count; b++)
                elsewhere |= !arrays[b].read_only && address >= arrays[b].begin && address + bytes <= arrays[b].begin + arrays[b].bytes;
            if (elsewhere) continue;
        }
        last = a;
        *place = {array.begin, array.begin + array.bytes, arrays[array.region].begin, cells[array.region], false, array.read_only != 0};
        return true;
    }
    return false;
}

extern "C" unsigned char __start_minidl_index[], __stop_minidl_index[];

void check_access(const void* at, size_t bytes, bool write, bool atomic, const void* pc, const char* file, int line) {
    if (!checking || on_own_stack(at)) return;
    const unsigned char* address = (const unsigned char*)at;
    if (address >= __start_minidl_index && address < __stop_minidl_index) return;  // threadIdx and its sisters
    Access access = {write, atomic, false, address, bytes, pc, file, line};
    Place place;
    if (!find(address, bytes, write, &place)) {
        if (address >= image->base && address < image->shared_begin && !write) return;  // constants of the kernel's library
        if (lies_elsewhere(address, bytes)) return;
        if (below_own_stack(address)) fault(MINIDL_STACK, access, address), leave();
        fault(MINIDL_BOUNDS, access, address), leave();
    }
    if (address + bytes > place.end) fault(MINIDL_BOUNDS, access, address), leave();
    if ((uintptr_t)address % (bytes > 16 ? 16 : bytes) && !(bytes & (bytes - 1))) fault(MINIDL_MISALIGNED, access, address), leave();
    if (write && place.read_only) fault(MINIDL_READ_ONLY, access, address), leave();
    access.shared = place.shared;
    const uint32_t place_pc = pc ? (uint32_t)((const unsigned char*)pc - image->base) - 1 : 0;
    for (uintptr_t a = (uintptr_t)address, end = a + bytes; a < end;) {
        const uintptr_t cell = a / 4 * 4, next = cell + 4 < end ? cell + 4 : end;
        const uint8_t mask = ((1u << (next - cell)) - 1) & ~((1u << (a - cell)) - 1);
        touch(place.cell((const unsigned char*)a), mask, access, (const unsigned char*)a, place_pc);
        a = next;
    }
}

// A copy begins: from now until it lands, nobody may touch its target.
void check_copy_issued(const void* shared, size_t bytes, const void* pc, const char* file, int line) {
    check_access(shared, bytes, true, false, pc, file, line);
    Place place;
    find((const unsigned char*)shared, bytes, true, &place);
    for (size_t b = 0; b < bytes; b += 4) place.cell((const char*)shared + b).write.flags |= IN_FLIGHT;
}

// It lands: a write by the thread that waited for it, at this moment.
void check_copy_landed(const void* shared, size_t bytes, const void*, const char*, int) {
    Place place;
    find((const unsigned char*)shared, bytes, true, &place);
    for (size_t b = 0; b < bytes; b += 4) {
        Mark& write = place.cell((const char*)shared + b).write;
        write = stamp(15, write.pc, 0);
    }
}

// ---------------------------------------------------------------- what g++ calls
#define HERE __builtin_return_address(0)
#define ACCESSES(N) \
    EXPORTED void __tsan_read##N(void* a) { check_access(a, N, false, false, HERE); } \
    EXPORTED void __tsan_write##N(void* a) { check_access(a, N, true, false, HERE); } \
    EXPORTED void __tsan_unaligned_read##N(void* a) { check_access(a, N, false, false, HERE); } \
    EXPORTED void __tsan_unaligned_write##N(void* a) { check_access(a, N, true, false, HERE); } \
    EXPORTED void __tsan_volatile_read##N(void* a) { check_access(a, N, false, false, HERE); } \
    EXPORTED void __tsan_volatile_write##N(void* a) { check_access(a, N, true, false, HERE); }
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
EXPORTED void __tsan_read_range(void* a, size_t n) { check_access(a, n, false, false, HERE); }
EXPORTED void __tsan_write_range(void* a, size_t n) { check_access(a, n, true, false, HERE); }
EXPORTED void __tsan_func_entry(void*) {}
EXPORTED void __tsan_func_exit() {}
EXPORTED void __tsan_init() {}
EXPORTED void __tsan_vptr_update(void*, void*) {}
EXPORTED void __tsan_vptr_read(void*) {}
EXPORTED void minidl_atomic(void* address, unsigned bytes) { check_access(address, bytes, true, true, HERE); }
EXPORTED void minidl_read(const void* address, unsigned bytes, const char* file, int line) {
    check_access(address, bytes, false, false, HERE, file, line);
}

// -fsanitize=bounds,alignment,signed-integer-overflow,integer-divide-by-zero: g++ hands over the place in the source.
struct Source { const char* file; uint32_t line, column; };

static void source_fault(int kind, const void* data, const char* format, long long a, long long b, const void* pc) {
    const Source* source = (const Source*)data;
    MinidlReport* r = report(kind, pc);
    r->file = source->file, r->line = (int)source->line;
    snprintf(r->text, sizeof r->text, format, a, b);
    leave();
}

EXPORTED void __ubsan_handle_out_of_bounds(void* data, uint64_t index) {
    source_fault(MINIDL_INDEX, data, "the index is %lld\n", (long long)(int64_t)index, 0, HERE);
}
EXPORTED void __ubsan_handle_type_mismatch_v1(void* data, uint64_t address) {
    const unsigned needed = 1u << *((const unsigned char*)data + sizeof(Source) + sizeof(void*));
    MinidlReport* r = report(address ? MINIDL_MISALIGNED : MINIDL_FAULT, HERE);
    locate(r, (const unsigned char*)address);
    r->file = ((const Source*)data)->file, r->line = (int)((const Source*)data)->line, r->bytes = needed;
    leave();
}
#define OVERFLOWS(NAME, SIGN) \
    EXPORTED void __ubsan_handle_##NAME(void* data, uint64_t a, uint64_t b) { \
        source_fault(MINIDL_OVERFLOW, data, "%lld " SIGN " %lld does not fit\n", (long long)(int)a, (long long)(int)b, HERE); \
    }
OVERFLOWS(add_overflow, "+") OVERFLOWS(sub_overflow, "-") OVERFLOWS(mul_overflow, "*")
EXPORTED void __ubsan_handle_divrem_overflow(void* data, uint64_t a, uint64_t b) {
    source_fault(MINIDL_ARITHMETIC, data, "%lld divided by %lld\n", (long long)(int)a, (long long)(int)b, HERE);
}
EXPORTED void __ubsan_handle_negate_overflow(void* data, uint64_t a) {
    source_fault(MINIDL_OVERFLOW, data, "-(%lld) does not fit\n", (long long)(int)a, 0, HERE);
}
