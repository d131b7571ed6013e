// What the kernels share: numbers of two widths, and the instructions that C++ has no words for.
//
// Every line of PTX of the project stands in this file, behind a function that says what it does.
// Sources: NVIDIA, "PTX ISA" (cp.async, mma.sync, ldmatrix, cvt) and "CUDA C++ Programming Guide".
// No header of CUDA is included, so that NVRTC needs none.
#pragma once

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;

#ifdef TINYCONV_EMULATED
#include "emulated_device.h"  // the same functions in plain C++ (tests/emulator)
#else

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

// The memory that a launch asks for with `shared` bytes, as an array of T.
#define SHARED_MEMORY(T, name)                                       \
    extern __shared__ __align__(128) unsigned char shared_bytes[];   \
    T *name = reinterpret_cast<T *>(shared_bytes)

// Whole numbers that stay on the device from one launch to the next, zeros at first.
#define DEVICE_COUNTERS(name, count) __device__ unsigned name[count];

// A float16 as it lies in memory.
struct half_t {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(half_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
    return f;
}

// Rounded to nearest even; beyond 65504 infinity.
__device__ __forceinline__ half_t to_half(float f) {
    half_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
    return h;
}

// A float32 rounded to the 10 bits of mantissa that tensor cores take, as mma_tf32 wants it.
__device__ __forceinline__ uint32_t to_tf32(float f) {
    uint32_t t;
#if __CUDA_ARCH__ >= 900  // one instruction instead of three; only exact halves differ
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(t) : "f"(f));
#else
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(t) : "f"(f));
#endif
    return t;
}

// Copies from global to shared memory that go on while the thread computes (cp.async). 16 bytes go
// past the first cache. Both addresses are aligned to the size; where not `valid`, zeros are written
// and nothing is read.
__device__ __forceinline__ void copy_async_16(void *shared, const void *global, bool valid) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(valid ? 16 : 0) : "memory");
}
// The same through the first cache, for what this or a neighbouring block soon reads again.
__device__ __forceinline__ void copy_async_16_cached(void *shared, const void *global, bool valid) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_8(void *shared, const void *global, bool valid) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(address), "l"(global),
                 "r"(valid ? 8 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_4(void *shared, const void *global, bool valid) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global),
                 "r"(valid ? 4 : 0) : "memory");
}

// End a group of this thread's copies; wait until at most N groups are still under way. What other
// threads copied is there after a __syncthreads() that follows their wait.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// D (16x8) += A (16x8) B (8x8) by a warp, TF32 in, float32 added up. With g = lane / 4 and
// t = lane % 4: a = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4]; b = B[t][g], B[t+4][g];
// d = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1].
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// D (16x8) += A (16x16) B (16x8) by a warp, float16 in (two in each register, the lower index in
// the lower half), float32 added up. a = A[g][2t..], A[g+8][2t..], A[g][2t+8..], A[g+8][2t+8..];
// b = B[2t..][g], B[2t+8..][g]; d as above.
__device__ __forceinline__ void mma_half(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 matrices of 16-bit numbers from shared memory to a warp's registers: lane i gives the
// address of row i % 8 of matrix i / 8 (16 bytes, aligned), and gets of each matrix the two numbers
// of row lane / 4 from column 2 (lane % 4) on. Transposed: those of column lane / 4, rows alike.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

#endif

__device__ __forceinline__ float to_float(float f) { return f; }

// f in the type of `like`: a kernel over T writes as<T>(value).
template <typename T>
__device__ __forceinline__ T as(float f);
template <>
__device__ __forceinline__ float as<float>(float f) { return f; }
template <>
__device__ __forceinline__ half_t as<half_t>(float f) { return to_half(f); }

// N numbers that are read and written at once: N * sizeof(T) is 4, 8 or 16, and the address is
// aligned to it.
template <typename T, int N>
struct __align__(N * sizeof(T)) Vector {
    T at[N];
};

// The sum, and the largest, of a value over the 32 lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}
__device__ __forceinline__ float warp_max(float value) {
    for (int distance = 16; distance; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}
