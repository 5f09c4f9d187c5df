// memory.cpp: arrays between unmapped pages, and copies that land later (cp.async).
#include "state.h"
#include <string.h>
#include <sys/mman.h>
#include <utility>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))
static const size_t GAP = (size_t)64 << 20;  // reserved addresses cost nothing: far misses hit nobody else
static const unsigned char CANARY = 0xff;

Array arrays[MAX_ARRAYS];
int array_count;

// ---------------------------------------------------------------- arrays that end where an unmapped page begins
struct Room { unsigned char *map, *first; size_t mapped, pages; };

static Room room_of(unsigned char* begin, size_t bytes) {
    Room room;
    unsigned char* end = (unsigned char*)(((uintptr_t)begin + bytes + 15) / 16 * 16);
    room.pages = ((size_t)(end - begin) + 31 + PAGE) / PAGE * PAGE;
    room.first = end - room.pages, room.map = room.first - GAP, room.mapped = room.pages + 2 * GAP;
    return room;
}

// `align` is the address modulo 16 that the array has, and keeps: a vector load is misaligned here exactly where it is there.
EXPORTED void* minidl_array_new(size_t bytes, unsigned align) {
    size_t room = (bytes + align + 15) / 16 * 16, pages = (room - align + 31 + PAGE) / PAGE * PAGE;
    unsigned char* map = (unsigned char*)mmap(nullptr, pages + 2 * GAP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    mprotect(map + GAP, pages, PROT_READ | PROT_WRITE);
    unsigned char *end = map + GAP + pages, *begin = end - room + align;
    memset(map + GAP, CANARY, begin - (map + GAP));
    memset(begin + bytes, CANARY, end - (begin + bytes));
    return begin;
}

EXPORTED void minidl_array_protect(void* array, size_t bytes) {
    Room room = room_of((unsigned char*)array, bytes);
    mprotect(room.first, room.pages, PROT_READ);
}

// Frees it; tells how many bytes before (negative) or behind (positive) the array were written, 0 if none.
EXPORTED long minidl_array_free(void* array, size_t bytes) {
    unsigned char* begin = (unsigned char*)array;
    Room room = room_of(begin, bytes);
    long wrong = 0;
    for (unsigned char* p = begin + bytes; p < room.first + room.pages && !wrong; p++) if (*p != CANARY) wrong = p - (begin + bytes) + 1;
    for (unsigned char* p = begin - 1; p >= room.first && !wrong; p--) if (*p != CANARY) wrong = -(begin - p);
    munmap(room.map, room.mapped);
    return wrong;
}

EXPORTED void minidl_arrays(int count, void** begins, const size_t* bytes, const int* read_only, const int* regions) {
    array_count = count < MAX_ARRAYS ? count : MAX_ARRAYS;
    for (int a = 0; a < array_count; a++) arrays[a] = {(unsigned char*)begins[a], bytes[a], read_only[a], regions[a]};
}

// Memory that no argument names and that a kernel may reach all the same: through addresses in a table. Not watched for races.
static std::vector<std::pair<uintptr_t, size_t>> elsewhere;

EXPORTED void minidl_elsewhere(int count, const uintptr_t* begins, const size_t* bytes) {
    elsewhere.clear();
    for (int e = 0; e < count; e++) elsewhere.push_back({begins[e], bytes[e]});
}

bool lies_elsewhere(const void* address, size_t bytes) {
    for (const auto& [begin, size] : elsewhere)
        if ((uintptr_t)address >= begin && (uintptr_t)address + bytes <= begin + size) return true;
    return false;
}

// Which array, or which shared memory, an address belongs to, or is nearest to.
void locate(MinidlReport* r, const unsigned char* address) {
    int64_t best = (int64_t)GAP;
    for (int a = 0; a < array_count; a++) {
        const unsigned char *begin = arrays[a].begin, *end = begin + arrays[a].bytes;
        int64_t miss = address < begin ? begin - address : address >= end ? address - end + 1 : 0;
        if (miss < best) best = miss, r->region = a, r->offset = address - begin, r->size = arrays[a].bytes;
    }
    if (address >= static_begin && address < static_end)
        r->region = MINIDL_STATIC, r->offset = address - static_begin, r->size = static_end - static_begin;
    const unsigned char* room_end = dynamic_room + DYNAMIC_ROOM + PAGE;
    if (address >= dynamic_room && address < room_end)
        r->region = MINIDL_DYNAMIC, r->offset = address - dynamic_begin, r->size = dynamic_bytes;
}

// ---------------------------------------------------------------- copies from global to shared memory that land at a wait
// They are done at the wait, as late as the hardware may: a kernel that forgets to wait, or waits for too few groups, reads
// what was there before.
struct Copy { unsigned char* shared; const unsigned char* global; unsigned bytes, valid; const char* file; int line; const void* pc; };
struct Pending { std::vector<Copy> copies; std::vector<size_t> groups; };  // groups: number of copies up to each commit
static Pending pending[MAX_THREADS];
static bool any_pending;

void copies_begin_block() {
    if (!any_pending) return;
    for (Pending& p : pending) p.copies.clear(), p.groups.clear();
    any_pending = false;
}


EXPORTED void minidl_copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, const char* file, int line) {
    const void* pc = __builtin_return_address(0);
    const bool own = bytes == 4 || bytes == 8 || bytes == 16;
    if (!own || valid > bytes) minidl_trap("an asynchronous copy has 4, 8 or 16 bytes, of which at most all are valid", file, line);
    if ((uintptr_t)shared % bytes || (valid && (uintptr_t)global % bytes)) {
        MinidlReport* r = report(MINIDL_MISALIGNED, pc);
        bool bad_target = (uintptr_t)shared % bytes;
        locate(r, bad_target ? (unsigned char*)shared : (const unsigned char*)global);
        r->bytes = bytes, r->write = bad_target, r->file = file, r->line = line;
        leave();
    }
    if (checking) {
        if (valid) check_access(global, valid, false, false, pc, file, line);
        check_copy_issued(shared, bytes, pc, file, line);
    }
    pending[current].copies.push_back({(unsigned char*)shared, (const unsigned char*)global, bytes, valid, file, line, pc});
    any_pending = true;
}

EXPORTED void minidl_copy_commit() {
    pending[current].groups.push_back(pending[current].copies.size());
    any_pending = true;
}

EXPORTED void minidl_copy_wait(unsigned groups_left) {
    Pending& p = pending[current];
    if (p.groups.size() <= groups_left) return;
    const size_t landing = p.groups.size() - groups_left, copies = p.groups[landing - 1];
    for (size_t c = 0; c < copies; c++) {
        const Copy& copy = p.copies[c];
        if (checking) check_copy_landed(copy.shared, copy.bytes, copy.pc, copy.file, copy.line);
        memcpy(copy.shared, copy.global, copy.valid);
        memset(copy.shared + copy.valid, 0, copy.bytes - copy.valid);
    }
    p.copies.erase(p.copies.begin(), p.copies.begin() + copies);
    p.groups.erase(p.groups.begin(), p.groups.begin() + landing);
    for (size_t& g : p.groups) g -= copies;
}
