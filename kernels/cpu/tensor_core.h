// tensor_core.h: what the project's wrappers of PTX (kernels/*.cuh) call on a CPU: asynchronous copies, mma.sync, ldmatrix.
// Fragment layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k8"; g = lane / 4, t = lane % 4.
#pragma once

// cp.async: `valid` of the bytes come from global memory, the rest are zeros. Nothing is there before the wait for its group.
#define cpu_copy_async(shared, global, bytes, valid) minidl_copy_async(shared, global, bytes, valid, __FILE__, __LINE__)
#define cpu_copy_commit() minidl_copy_commit()
#define cpu_copy_wait(groups_left) minidl_copy_wait(groups_left)

// A float as the tensor core takes it: 10 bits of mantissa, to nearest, ties away from zero (cvt.rna.tf32.f32).
MINIDL_OURS static inline unsigned cpu_to_tf32(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;  // infinity and NaN
    return (bits + 0x1000u) & 0xffffe000u;
}

struct MinidlMma { float* d; const unsigned *a, *b; const float* c; };

MINIDL_OURS static inline float minidl_tf32(unsigned bits) { return __uint_as_float(bits & 0xffffe000u); }  // the low 13 bits are ignored

MINIDL_OURS static void minidl_complete_mma(MinidlWarpCall** lanes, unsigned) {
    float a[16][8], b[8][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const MinidlMma* m = (const MinidlMma*)lanes[lane]->extra;
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = minidl_tf32(m->a[i]);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = minidl_tf32(m->b[i]);
        for (int i = 0; i < 4; i++) d[g + i / 2 * 8][2 * t + i % 2] = m->c[i];
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 8; k++)
            for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; lane++) {
        const MinidlMma* m = (const MinidlMma*)lanes[lane]->extra;
        for (int i = 0; i < 4; i++) m->d[i] = d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
    }
}

// d (16×8) = a (16×8) · b (8×8) + c (16×8), by a whole warp; each lane brings and gets its fragments.
MINIDL_OURS static inline void minidl_mma_m16n8k8_tf32(const char* file, int line, float* d,
                                                        const unsigned* a, const unsigned* b, const float* c) {
    MinidlMma registers = {d, a, b, c};
    MinidlWarpCall call = {MINIDL_MMA, ~0u, file, line, 0, 0, 0, &registers};
    minidl_warp(&call, minidl_complete_mma);
}
#define cpu_mma_m16n8k8_tf32(d, a, b, c) minidl_mma_m16n8k8_tf32(__FILE__, __LINE__, d, a, b, c)

struct MinidlMatrix { unsigned* registers; const void* row; int count; };

// ldmatrix: lane l brings the address of row l % 8 of matrix l / 8 (8 rows of 16 bytes); then lane l holds, of each matrix,
// the 4 bytes number l % 4 of row l / 4.
MINIDL_OURS static void minidl_complete_ldmatrix(MinidlWarpCall** lanes, unsigned) {
    for (int matrix = 0; matrix < ((const MinidlMatrix*)lanes[0]->extra)->count; matrix++)
        for (int lane = 0; lane < 32; lane++) {
            const char* row = (const char*)((const MinidlMatrix*)lanes[matrix * 8 + lane / 4]->extra)->row;
            memcpy(((const MinidlMatrix*)lanes[lane]->extra)->registers + matrix, row + lane % 4 * 4, 4);
        }
}
MINIDL_OURS static inline void minidl_ldmatrix(const char* file, int line, unsigned* registers, const void* row, int count) {
    if (minidl_lane() < 8 * count) minidl_read(row, 16, file, line);  // this lane's row is read: checked in its name
    MinidlMatrix part = {registers, row, count};
    MinidlWarpCall call = {MINIDL_LDMATRIX, ~0u, file, line, 0, 0, 0, &part};
    minidl_warp(&call, minidl_complete_ldmatrix);
}
#define cpu_ldmatrix_x4(registers, row) minidl_ldmatrix(__FILE__, __LINE__, registers, row, 4)
#define cpu_ldmatrix_x2(registers, row) minidl_ldmatrix(__FILE__, __LINE__, registers, row, 2)
