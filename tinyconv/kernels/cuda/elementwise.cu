// Functions of single numbers for whole arrays: y[i] = FUNCTION::of(a[i], b[i], c[i], s).
//
// Arithmetic, activations, sums of gradients where branches meet, casts and copies. The source is
// compiled with FUNCTION, one of the functions below; INPUTS, how many arrays that takes; and TY,
// TA, TB, TC, the types of the numbers in memory (the arithmetic is float32's). `flat` is for arrays
// that lie alike: whatever their axes are, they are rows of n numbers, moved 16 bytes at a time.
// `strided` is for all others, and `transpose` copies between channels first and last. Each input is
// read once and the result written once: that traffic is all that the kernels cost.
#include "device.cuh"

#define DEFINE(name, expression)                                                                 \
    struct name {                                                                                \
        static __device__ __forceinline__ float of(float a, float b, float c, float s) {         \
            return expression;                                                                   \
        }                                                                                        \
    };

// Where a function has a kink or a NaN comes in, it does what ops/*.py do there.
DEFINE(Copy, a)
DEFINE(Add, a + b)
DEFINE(Subtract, a - b)
DEFINE(Multiply, a * b)
DEFINE(Divide, a / b)
DEFINE(DivideBackward, -a * b / (c * c))                     // gy, a, b
DEFINE(Negative, -a)
DEFINE(Absolute, fabsf(a))
DEFINE(AbsoluteBackward, b > 0 ? a : b < 0 ? -a : a * b)     // gy, x
DEFINE(Exp, expf(a))
DEFINE(Log, logf(a))
DEFINE(Sqrt, sqrtf(a))
DEFINE(SqrtBackward, a / (2 * b))                            // gy, y
DEFINE(Power, powf(a, s))
DEFINE(PowerBackward, a * s * powf(b, s - 1))                // gy, x
DEFINE(Maximum, a > b || a != a ? a : b)
DEFINE(Minimum, a < b || a != a ? a : b)
DEFINE(GreaterBackward, a * (b == c ? 0.5f : b > c))         // gy, the input, the other
DEFINE(OtherBackward, a * (b == c ? 0.5f : !(b > c)))        // gy, the other, the input

DEFINE(ReLU, a < 0 ? 0 : a)
DEFINE(ReLUBackward, b <= 0 ? 0 : a)                         // gy, y
DEFINE(ReLU6, a < 0 ? 0 : a > 6 ? 6 : a)
DEFINE(ReLU6Backward, b <= 0 || b >= 6 ? 0 : a)              // gy, y
DEFINE(LeakyReLU, a > 0 ? a : a * s)
DEFINE(LeakyReLUBackward, b > 0 ? a : a * s)                 // gy, x
DEFINE(Tanh, tanhf(a))
DEFINE(TanhBackward, a * (1 - b * b))                        // gy, y
DEFINE(Sigmoid, (a < 0 ? expf(a) : 1) / (1 + expf(-fabsf(a))))
DEFINE(SigmoidBackward, a * b * (1 - b))                     // gy, y

// Binary cross-entropy (see ops/loss.py): t is the target, w the weight of its 1.
DEFINE(Softplus, fmaxf(-a, 0) + log1pf(expf(-fabsf(a))))     // of -x
DEFINE(TotalWeight, a * b + (1 - a))                         // t, w
DEFINE(TotalOfOne, a + (1 - a))                              // t, where w is 1
DEFINE(BinaryLoss, (1 - b) * a + c)                          // x, t, total * softplus
DEFINE(MinusExp, -c * expf(-a - b))                          // x, softplus, total
DEFINE(BinaryLossBackward, a * ((1 - b) + c))                // gy, t, -total * e^(-x - softplus)

union Widest {
    TY y;
    TA a;
    TB b;
    TC c;
};
constexpr int VECTOR = 16 / sizeof(Widest);  // numbers that a thread works on at a time

// N numbers of an input from number i on; with step 0 its only one, N times.
template <int N, typename T>
__device__ __forceinline__ void read(float (&to)[N], const T *x, int step, unsigned i) {
    if (step) {
        Vector<T, N> vector = *reinterpret_cast<const Vector<T, N> *>(x + i);
        for (int k = 0; k < N; k++) to[k] = to_float(vector.at[k]);
    } else {
        float only = to_float(x[0]);
        for (int k = 0; k < N; k++) to[k] = only;
    }
}

template <int N>
__device__ __forceinline__ void compute(TY *y, const TA *a, const TB *b, const TC *c, int a_step,
                                        int b_step, int c_step, unsigned i, float s) {
    float p[N] = {}, q[N] = {}, r[N] = {};
    read(p, a, a_step, i);
    if constexpr (INPUTS > 1) read(q, b, b_step, i);
    if constexpr (INPUTS > 2) read(r, c, c_step, i);
    Vector<TY, N> result;
    for (int k = 0; k < N; k++) result.at[k] = as<TY>(FUNCTION::of(p[k], q[k], r[k], s));
    *reinterpret_cast<Vector<TY, N> *>(y + i) = result;
}

template <typename T>
__device__ __forceinline__ bool is_aligned(const T *x, int step) {
    return step == 0 || reinterpret_cast<size_t>(x) % (VECTOR * sizeof(T)) == 0;
}

// A block works on 2 * 256 vectors, a thread on two of them, 256 apart: the loads of both are on
// their way before the first is used. The steps of the inputs are 1, or 0 for a single number.
extern "C" __global__ void __launch_bounds__(256)
flat(TY *__restrict__ y, const TA *__restrict__ a, const TB *__restrict__ b,
     const TC *__restrict__ c, int a_step, int b_step, int c_step, int n, float s) {
    bool aligned = is_aligned(y, 1) && is_aligned(a, a_step) && is_aligned(b, b_step) &&
                   is_aligned(c, c_step);
    unsigned first = blockIdx.x * 512 + threadIdx.x;
    unsigned count = n;
    if (aligned && (blockIdx.x + 1) * (512 * VECTOR) <= count) {
#pragma unroll
        for (int k = 0; k < 2; k++)
            compute<VECTOR>(y, a, b, c, a_step, b_step, c_step, (first + k * 256) * VECTOR, s);
        return;
    }
#pragma unroll 1
    for (unsigned i = first; i < (blockIdx.x + 1) * 512; i += 256) {
        if (aligned && (i + 1) * VECTOR <= count)
            compute<VECTOR>(y, a, b, c, a_step, b_step, c_step, i * VECTOR, s);
        else
#pragma unroll 1
            for (unsigned j = i * VECTOR; j < min((i + 1) * VECTOR, count); j++)
                compute<1>(y, a, b, c, a_step, b_step, c_step, j, s);
    }
}

// How the inputs lie: along each of `count` axes of y, from the outermost in memory to the innermost,
// its size and the inputs' steps in numbers (0 where an input is repeated).
constexpr int MOST_AXES = 6;
struct Lie {
    int size[MOST_AXES];
    int step[3][MOST_AXES];
    int count;
};

// A thread computes one number of y, which has no gaps.
extern "C" __global__ void __launch_bounds__(256)
strided(TY *__restrict__ y, const TA *__restrict__ a, const TB *__restrict__ b,
        const TC *__restrict__ c, Lie lie, int n, float s) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    int left = i;
    long long at[3] = {};
#pragma unroll
    for (int axis = MOST_AXES - 1; axis >= 0; axis--) {
        if (axis >= lie.count) continue;
        int outer = left / lie.size[axis], index = left - outer * lie.size[axis];
        left = outer;
#pragma unroll
        for (int k = 0; k < INPUTS; k++)
            at[k] += static_cast<long long>(lie.step[k][axis]) * index;
    }
    float p = to_float(a[at[0]]), q = 0, r = 0;
    if constexpr (INPUTS > 1) q = to_float(b[at[1]]);
    if constexpr (INPUTS > 2) r = to_float(c[at[2]]);
    y[i] = as<TY>(FUNCTION::of(p, q, r, s));
}

// y (B, M, N) = x (B, N, M): a block moves a square of 32 x 32 through shared memory, so that both
// are read and written along rows. Rows of 33: a column then lies in 32 different banks.
extern "C" __global__ void __launch_bounds__(256)
transpose(TY *__restrict__ y, const TA *__restrict__ x, int M, int N) {
    __shared__ float square[32][33];
    int across = (N + 31) / 32, down = (M + 31) / 32;
    int tile = blockIdx.x % (across * down), column = threadIdx.x % 32, row = threadIdx.x / 32;
    size_t start = static_cast<size_t>(blockIdx.x / (across * down)) * M * N;
    int m = tile / across * 32, n = tile % across * 32;
#pragma unroll
    for (int k = row; k < 32; k += 8)
        if (n + k < N && m + column < M)
            square[k][column] = to_float(x[start + static_cast<size_t>(n + k) * M + m + column]);
    __syncthreads();
#pragma unroll
    for (int k = row; k < 32; k += 8)
        if (m + k < M && n + column < N)
            y[start + static_cast<size_t>(m + k) * N + n + column] = as<TY>(square[column][k]);
}
