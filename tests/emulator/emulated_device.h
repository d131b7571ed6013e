// CUDA C++ for g++: what the .cu sources of tinyconv/kernels/cuda use, on the CPU.
//
// Each CUDA thread is a fibre of one OS thread; blocks run one after the other. A fibre runs until
// it has to wait for others (a barrier, a warp function); emulated_device.cpp switches between them.
// The second half has a twin of every function that device.cuh writes in PTX.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// Words of the language ---------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // in the library's .bss, which is filled with NaN before each block

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

#define EMULATED_VECTORS(T, name)                                                     \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                \
    struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                 \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float)
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(unsigned, uint)
#undef EMULATED_VECTORS

// The scheduler (emulated_device.cpp) -------------------------------------------------------------

namespace emulated {

struct Copy {
    void *to;
    const void *from;
    int bytes;
    bool valid;
};

struct Thread {
    uint3 index;
    int lane;
    Copy copies[1024];  // not waited for yet, the oldest first
    int copied;         // how many of them
    int groups[64];     // for each group that was committed: where in `copies` it ends
    int committed;
};

enum Vote { ANY, ALL, COUNT };

extern "C" {
extern Thread *emulated_thread;  // the one that runs
extern dim3 emulated_block_index, emulated_block_size, emulated_grid_size;
extern unsigned char *emulated_dynamic_shared;

// Ends the launch with an error.
[[noreturn]] void emulated_error(const char *format, ...);
// Waits for all threads of the block; `line` must be the same for all.
int emulated_barrier(int line, int vote, Vote how);
// Waits until all lanes of `mask` that have not returned have come to the same call; one of them
// then calls perform(slots), with null for the lanes that take no part.
void emulated_warp(unsigned mask, void *slot, void (*perform)(void **slots));
void emulated_copy(void *shared, const void *global, int bytes, bool valid);
void emulated_wait_for_copies(int groups);
void emulated_check_shared(const void *address, int bytes);
}

}  // namespace emulated

#define threadIdx (emulated::emulated_thread->index)
#define blockIdx (emulated::emulated_block_index)
#define blockDim (emulated::emulated_block_size)
#define gridDim (emulated::emulated_grid_size)
#define warpSize 32

#define __syncthreads() ((void)emulated::emulated_barrier(__LINE__, 0, emulated::COUNT))
#define __syncthreads_or(p) emulated::emulated_barrier(__LINE__, (p) != 0, emulated::ANY)
#define __syncthreads_and(p) emulated::emulated_barrier(__LINE__, (p) != 0, emulated::ALL)
#define __syncthreads_count(p) emulated::emulated_barrier(__LINE__, (p) != 0, emulated::COUNT)

// Warps -------------------------------------------------------------------------------------------

namespace emulated {

struct Empty {};
template <typename T>
struct Shuffled {
    T in, out;
    int source;
};

// Each lane gets the value of the lane `source`; all bits set (NaN) where that takes no part.
template <typename T>
T shuffle(unsigned mask, T value, int source) {
    Shuffled<T> slot{value, value, source};
    emulated_warp(mask, &slot, [](void **slots) {
        for (int lane = 0; lane < 32; lane++) {
            auto *to = static_cast<Shuffled<T> *>(slots[lane]);
            if (!to) continue;
            auto *from = static_cast<Shuffled<T> *>(slots[to->source]);
            if (from) to->out = from->in;
            else memset(&to->out, 0xff, sizeof(T));
        }
    });
    return slot.out;
}

struct Ballot {
    bool predicate;
    unsigned result;
};

}  // namespace emulated

static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulated::Empty slot;
    emulated::emulated_warp(mask, &slot, [](void **) {});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = emulated::emulated_thread->lane, first = lane & ~(width - 1);
    return emulated::shuffle(mask, value, first + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = emulated::emulated_thread->lane, source = lane ^ bits;
    return emulated::shuffle(mask, value, source <= (lane | (width - 1)) ? source & 31 : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    int lane = emulated::emulated_thread->lane, source = lane + static_cast<int>(distance);
    return emulated::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    int lane = emulated::emulated_thread->lane, source = lane - static_cast<int>(distance);
    return emulated::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    emulated::Ballot slot{predicate != 0, 0};
    emulated::emulated_warp(mask, &slot, [](void **slots) {
        unsigned result = 0;
        for (int lane = 0; lane < 32; lane++)
            if (auto *s = static_cast<emulated::Ballot *>(slots[lane]); s && s->predicate)
                result |= 1u << lane;
        for (int lane = 0; lane < 32; lane++)
            if (auto *s = static_cast<emulated::Ballot *>(slots[lane])) s->result = result;
    });
    return slot.result;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
static inline unsigned __activemask() {
    emulated::emulated_error("__activemask() promises nothing: name the lanes instead");
}

// Memory ------------------------------------------------------------------------------------------

template <typename T>
T __ldg(const T *p) { return *p; }
template <typename T>
T __ldcs(const T *p) { return *p; }
template <typename T>
void __stcs(T *p, T value) { *p = value; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <typename T>
T atomicAdd(T *p, T value) {
    static_assert(T(0.5f) == T(0), "sums of floats by atomics depend on the order");
    T before = *p;
    *p = before + value;
    return before;
}
template <typename T>
T atomicMax(T *p, T value) {
    T before = *p;
    if (value > before) *p = value;
    return before;
}
template <typename T>
T atomicMin(T *p, T value) {
    T before = *p;
    if (value < before) *p = value;
    return before;
}
template <typename T>
T atomicOr(T *p, T value) {
    T before = *p;
    *p = before | value;
    return before;
}
template <typename T>
T atomicExch(T *p, T value) {
    T before = *p;
    *p = value;
    return before;
}
template <typename T>
T atomicCAS(T *p, T expected, T value) {
    T before = *p;
    if (before == expected) *p = value;
    return before;
}

// Numbers -----------------------------------------------------------------------------------------

#define EMULATED_MIN_MAX(T)                                    \
    static inline T min(T a, T b) { return b < a ? b : a; }    \
    static inline T max(T a, T b) { return a < b ? b : a; }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

namespace emulated {
template <typename To, typename From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
}  // namespace emulated

static inline int __float_as_int(float f) { return emulated::bits_as<int>(f); }
static inline unsigned __float_as_uint(float f) { return emulated::bits_as<unsigned>(f); }
static inline float __int_as_float(int i) { return emulated::bits_as<float>(i); }
static inline float __uint_as_float(unsigned u) { return emulated::bits_as<float>(u); }
static inline long long __double_as_longlong(double d) { return emulated::bits_as<long long>(d); }
static inline double __longlong_as_double(long long i) { return emulated::bits_as<double>(i); }

static inline float rsqrtf(float f) { return 1 / sqrtf(f); }
static inline double rsqrt(double d) { return 1 / sqrt(d); }
#define __expf(f) expf(f)  // macros: the C library has functions of these names
#define __exp10f(f) powf(10, f)
#define __logf(f) logf(f)
#define __log2f(f) log2f(f)
#define __powf(a, b) powf(a, b)
#define __sinf(f) sinf(f)
#define __cosf(f) cosf(f)
static inline float __saturatef(float f) { return fminf(fmaxf(f, 0), 1); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float f) { return 1 / f; }
static inline float __fsqrt_rn(float f) { return sqrtf(f); }
static inline float __frsqrt_rn(float f) { return 1 / sqrtf(f); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline int __float2int_rn(float f) { return static_cast<int>(rintf(f)); }
static inline int __float2int_rd(float f) { return static_cast<int>(floorf(f)); }
static inline int __float2int_ru(float f) { return static_cast<int>(ceilf(f)); }
static inline int __float2int_rz(float f) { return static_cast<int>(f); }
static inline unsigned __float2uint_rn(float f) { return static_cast<unsigned>(rintf(f)); }
static inline float __int2float_rn(int i) { return static_cast<float>(i); }
static inline float __uint2float_rn(unsigned u) { return static_cast<float>(u); }
static inline int __popc(unsigned u) { return __builtin_popcount(u); }
static inline int __clz(int i) { return i ? __builtin_clz(static_cast<unsigned>(i)) : 32; }
static inline int __ffs(int i) { return __builtin_ffs(i); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
static inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<long long>(a) * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// Twins of device.cuh -----------------------------------------------------------------------------

#define SHARED_MEMORY(T, name) T *name = reinterpret_cast<T *>(emulated::emulated_dynamic_shared)
// In .data, though it begins with zeros: .bss is shared memory.
#define DEVICE_COUNTERS(name, count) static unsigned name[count] __attribute__((section(".data")));

struct half_t {
    uint16_t bits;
};

static inline float to_float(half_t h) {
    uint32_t sign = (h.bits & 0x8000u) << 16, rest = h.bits & 0x7fffu;
    if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    float size = ldexpf(static_cast<float>(rest < 0x400 ? rest : (rest & 0x3ffu) | 0x400u),
                        rest < 0x400 ? -24 : static_cast<int>(rest >> 10) - 25);
    return sign ? -size : size;
}

static inline half_t to_half(float f) {
    uint32_t u = __float_as_uint(f), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return {static_cast<uint16_t>(0x7fffu)};  // NaN
    if (rest >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
    uint32_t half;
    if (rest < 0x38800000u)  // below the smallest normal number: a multiple of 2^-24
        half = static_cast<uint32_t>(rintf(__uint_as_float(rest) * 0x1p24f));
    else
        half = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1)) >> 13;
    return {static_cast<uint16_t>(sign | half)};
}

static inline uint32_t to_tf32(float f) {
    uint32_t u = __float_as_uint(f);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & ~0x1fffu;
}

// Nothing is read or written before the wait that covers the copy; until then the target is NaN.
static inline void copy_async_16(void *shared, const void *global, bool valid) {
    emulated::emulated_copy(shared, global, 16, valid);
}
static inline void copy_async_16_cached(void *shared, const void *global, bool valid) {
    emulated::emulated_copy(shared, global, 16, valid);
}
static inline void copy_async_8(void *shared, const void *global, bool valid) {
    emulated::emulated_copy(shared, global, 8, valid);
}
static inline void copy_async_4(void *shared, const void *global, bool valid) {
    emulated::emulated_copy(shared, global, 4, valid);
}
static inline void commit_copies() {
    auto &t = *emulated::emulated_thread;
    if (t.committed == 64) emulated::emulated_error("commit_copies: 64 groups are under way");
    t.groups[t.committed++] = t.copied;
}
template <int N>
void wait_for_copies() { emulated::emulated_wait_for_copies(N); }

namespace emulated {

struct Product {
    float *d;
    const uint32_t *a, *b;
};

// D (16x8) += A (16xK) B (Kx8): each lane holds 4 numbers of D, and its registers of A and B. `A`
// and `B` say what a register holds: at(registers, row, column) for the lane that has it.
template <int K, typename Operand>
void multiply(void **slots, Operand operand) {
    Product *lanes[32];
    for (int lane = 0; lane < 32; lane++) {
        lanes[lane] = static_cast<Product *>(slots[lane]);
        if (!lanes[lane]) emulated_error("mma: lane %d of the warp takes no part", lane);
    }
    float A[16][K], B[K][8];
    for (int lane = 0; lane < 32; lane++)
        operand(lane / 4, lane % 4, lanes[lane]->a, lanes[lane]->b, A, B);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = lanes[lane]->d[i];
            for (int k = 0; k < K; k++) sum += A[row][k] * B[k][column];
            lanes[lane]->d[i] = sum;
        }
}

inline float tf32(uint32_t u) { return __uint_as_float(u & ~0x1fffu); }  // 19 bits are looked at
inline float half(uint32_t u, int i) { return to_float(half_t{static_cast<uint16_t>(u >> 16 * i)}); }

}  // namespace emulated

static inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulated::Product slot{d, a, b};
    emulated::emulated_warp(0xffffffffu, &slot, [](void **slots) {
        emulated::multiply<8>(slots, [](int g, int t, auto a, auto b, auto &A, auto &B) {
            for (int i = 0; i < 4; i++) A[g + i % 2 * 8][t + i / 2 * 4] = emulated::tf32(a[i]);
            for (int i = 0; i < 2; i++) B[t + i * 4][g] = emulated::tf32(b[i]);
        });
    });
}

static inline void mma_half(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulated::Product slot{d, a, b};
    emulated::emulated_warp(0xffffffffu, &slot, [](void **slots) {
        emulated::multiply<16>(slots, [](int g, int t, auto a, auto b, auto &A, auto &B) {
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 2; j++)
                    A[g + i % 2 * 8][2 * t + j + i / 2 * 8] = emulated::half(a[i], j);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) B[2 * t + j + i * 8][g] = emulated::half(b[i], j);
        });
    });
}

namespace emulated {

struct Matrices {
    uint32_t *r;
    const void *row;
};

template <bool TRANSPOSED>
void load(uint32_t (&r)[4], const void *row) {
    emulated_check_shared(row, 16);
    Matrices slot{r, row};
    emulated_warp(0xffffffffu, &slot, [](void **slots) {
        for (int lane = 0; lane < 32; lane++) {
            auto *to = static_cast<Matrices *>(slots[lane]);
            if (!to) emulated_error("load_matrices: lane %d of the warp takes no part", lane);
            for (int i = 0; i < 4; i++) {
                uint32_t both = 0;
                for (int j = 0; j < 2; j++) {
                    int row = lane / 4, column = lane % 4 * 2 + j;
                    if (TRANSPOSED) { int swap = row; row = column; column = swap; }
                    auto *from = static_cast<Matrices *>(slots[8 * i + row]);
                    if (!from) emulated_error("load_matrices: a lane of the warp takes no part");
                    both |= static_cast<uint32_t>(
                                static_cast<const uint16_t *>(from->row)[column]) << 16 * j;
                }
                to->r[i] = both;
            }
        }
    });
}

}  // namespace emulated

static inline void load_matrices(uint32_t (&r)[4], const void *row) {
    emulated::load<false>(r, row);
}
static inline void load_matrices_transposed(uint32_t (&r)[4], const void *row) {
    emulated::load<true>(r, row);
}

// What a launch has to know of a kernel: the types of its parameters, and how to call it ------------

namespace emulated {

template <typename T> constexpr const char *name_of = "any";
template <typename T> constexpr const char *name_of<const T> = name_of<T>;
template <> inline constexpr const char *name_of<float> = "float32";
template <> inline constexpr const char *name_of<double> = "float64";
template <> inline constexpr const char *name_of<half_t> = "float16";
template <> inline constexpr const char *name_of<bool> = "bool";
template <> inline constexpr const char *name_of<signed char> = "int8";
template <> inline constexpr const char *name_of<unsigned char> = "uint8";
template <> inline constexpr const char *name_of<short> = "int16";
template <> inline constexpr const char *name_of<unsigned short> = "uint16";
template <> inline constexpr const char *name_of<int> = "int32";
template <> inline constexpr const char *name_of<unsigned> = "uint32";
template <> inline constexpr const char *name_of<long> = "int64";
template <> inline constexpr const char *name_of<unsigned long> = "uint64";
template <> inline constexpr const char *name_of<long long> = "int64";
template <> inline constexpr const char *name_of<unsigned long long> = "uint64";

template <typename T> struct Parameter {
    static constexpr const char *kind = "value", *type = name_of<T>;
};
template <typename T> struct Parameter<T *> {
    static constexpr const char *kind = "array", *type = name_of<T>;
};

// "array float32 8;value int32 4;..." for the kernel's parameters and their sizes in bytes; "any"
// for structures, and for arrays of them.
template <typename... P>
void signature(void (*)(P...), char *text) {
    text[0] = 0;
    ((text += sprintf(text, "%s %s %zu;", Parameter<P>::kind, Parameter<P>::type, sizeof(P))), ...);
}

template <int... I> struct Positions {};

template <typename... P, int... I>
void call(void (*kernel)(P...), void **arguments, Positions<I...>) {
    kernel(*static_cast<P *>(arguments[I])...);
}
template <typename... P>
void call(void (*kernel)(P...), void **arguments) {
    call(kernel, arguments, Positions<__integer_pack(sizeof...(P))...>());
}

constexpr int first(int bound, int = 0) { return bound; }  // of __launch_bounds__(threads, blocks)

}  // namespace emulated

// Follows the source once for each of its kernels.
#define EMULATED_KERNEL(name, ...)                                                              \
    extern "C" __attribute__((visibility("default"))) void emulated_call_##name(void **a) {     \
        emulated::call(name, a);                                                                \
    }                                                                                           \
    extern "C" __attribute__((visibility("default"))) void emulated_signature_##name(char *s) { \
        emulated::signature(name, s);                                                           \
    }                                                                                           \
    extern "C" __attribute__((visibility("default"))) int emulated_bound_##name() {             \
        return emulated::first(__VA_ARGS__);                                                    \
    }
