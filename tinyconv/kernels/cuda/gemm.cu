// What comes before and after a product: the weights in its order, and the sum of its parts.
//
// Where the sum over k was split among blocks, each part holds the sums over one stretch of k
// (float32). Here they are added up, always in the same order, so that the result is the same at
// every run. A block has 32 neighbouring numbers of the result and 8 groups of threads, each of
// which reads every 8th part of them; every part is read once, the result written once.
#include "finish.cuh"

constexpr int GROUPS = 8;

// The sum of parts[p * size + i] over all p; it is whole in the threads of the first group.
__device__ __forceinline__ float sum_of_parts(const float *__restrict__ parts, int size, int count,
                                              int i) {
    __shared__ float sums[GROUPS][32];
    float sum = 0;
    if (i < size) {
#pragma unroll 8
        for (int p = threadIdx.y; p < count; p += GROUPS)
            sum += parts[static_cast<size_t>(p) * size + i];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0)
        for (int group = 1; group < GROUPS; group++) sum += sums[group][threadIdx.x];
    return sum;
}

// y = finish(sum), rows of N numbers, as the product itself writes it where it is not split.
extern "C" __global__ void __launch_bounds__(256)
    sum_product(const float *__restrict__ parts, TX *__restrict__ y,
                const TX *__restrict__ residual, const float *b, const float *weight,
                const float *bias, const float *mean, const float *var, float eps, float low,
                float high, int size, int N, int count) {
    int i = blockIdx.x * 32 + threadIdx.x;
    float sum = sum_of_parts(parts, size, count, i);
    if (threadIdx.y || i >= size) return;
    Finish finish{b, weight, bias, mean, var, eps, low, high};
    Finish::Line line = finish.line(i % N);
    sum = sum * line.factor + line.summand;
    if (residual) sum += to_float(residual[i]);
    y[i] = as<TX>(finish.clip(sum));
}

// Parts of the gradient of weights (O, KH*KW, C), and of that of the bias (O,) behind them where it
// is wanted: a part has `stride` numbers. gw becomes (O, C, KH*KW).
extern "C" __global__ void __launch_bounds__(256)
    sum_gradient(const float *__restrict__ parts, float *__restrict__ gw, float *__restrict__ gb,
                 int stride, int size, int C, int TAPS, int count) {
    int i = blockIdx.x * 32 + threadIdx.x;
    float sum = sum_of_parts(parts, stride, count, i);
    if (threadIdx.y || i >= stride) return;
    if (i >= size) {
        gb[i - size] = sum;
    } else {
        int c = i % C, tap = i / C % TAPS, o = i / C / TAPS;
        gw[(o * C + c) * TAPS + tap] = sum;
    }
}

// to[r][tap][i] = w[r * row_stride + tap + i * inner_stride] as NUMBER, rounded to TF32 where the
// tensor cores would ignore the rest. A thread has one (r, i): its taps lie together in w, and at
// each tap the threads write together.
extern "C" __global__ void __launch_bounds__(256)
    lay_out_weights(const float *__restrict__ w, NUMBER *__restrict__ to, int rows, int inner,
                    int taps, int row_stride, int inner_stride) {
    int thread = blockIdx.x * 256 + threadIdx.x;
    if (thread >= rows * inner) return;
    int r = thread / inner, i = thread % inner;
    for (int tap = 0; tap < taps; tap++) {
        float number = w[r * row_stride + i * inner_stride + tap];
#if !EXACT
        if constexpr (sizeof(NUMBER) == 4) number = __uint_as_float(to_tf32(number));
#endif
        to[(r * taps + tap) * inner + i] = as<NUMBER>(number);
    }
}
