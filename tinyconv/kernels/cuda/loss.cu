// Losses of a classifier for scores x (N, C), forward and backward in one launch each.
//
// GROUP threads work on a row, a power of two up to 32: for ten classes 8 of them, for a thousand a
// warp. A row of x is read once from memory and then from the cache; log-probabilities and targets
// are written for backward. Losses are added up by thread, by block, and by the last block over all
// blocks: always in the same order. LABEL is the type of the targets, class numbers (N,) or, with
// PROBABILITIES, float (N, C). SOFTMAX says whether x holds scores, or log-probabilities already.
#include "rows.cuh"

enum Reduction { NONE, MEAN, SUM };

// What the loss is told about the targets: see ops/loss.py.
struct Targets {
    const LABEL *at;
    const float *weight;
    int ignored;
    float kept, spread;  // 1 - label smoothing, and that over C

    __device__ __forceinline__ bool is_ignored(int row) const {
        return !PROBABILITIES && at[row] == ignored;
    }
    __device__ __forceinline__ float weight_of(int c) const { return weight ? weight[c] : 1; }

    // q of class c; NaN for a class number that does not exist, so that nobody misses it.
    __device__ __forceinline__ float share(int row, int c, int C) const {
        if (PROBABILITIES)
            return (static_cast<float>(at[static_cast<size_t>(row) * C + c]) * kept + spread) *
                   weight_of(c);
        if (is_ignored(row)) return 0;
        if (at[row] < 0 || at[row] >= C) return NAN;
        return ((at[row] == c ? kept : 0) + spread) * weight_of(c);
    }
    // What the row adds to the divisor of the mean.
    __device__ __forceinline__ float count(int row, int C) const {
        if (PROBABILITIES) return 1;
        if (is_ignored(row) || at[row] < 0 || at[row] >= C) return 0;
        return weight_of(static_cast<int>(at[row]));
    }
};

// partials (2, blocks): memory for the sums of the blocks.
extern "C" __global__ void __launch_bounds__(256)
forward(float *__restrict__ loss, float *__restrict__ divisor, float *__restrict__ logp,
        float *__restrict__ q, float *partials, const float *__restrict__ x,
        const LABEL *__restrict__ target, const float *__restrict__ weight, int N, int C,
        int ignored, float kept, float spread, int reduction) {
    Targets targets{target, weight, ignored, kept, spread};
    int lane = threadIdx.x % GROUP, step = gridDim.x * (256 / GROUP);
    float total = 0, count = 0;
    for (int base = blockIdx.x * (256 / GROUP); base < N; base += step) {
        int row = base + threadIdx.x / GROUP, end = row < N ? C : 0;
        size_t start = static_cast<size_t>(row) * C;
        float largest = 0, log_sum = 0, own = 0;
        if (SOFTMAX) {
            largest = -INFINITY;
            for (int c = lane; c < end; c += GROUP) largest = fmaxf(largest, x[start + c]);
            largest = row_max<GROUP>(largest);
            for (int c = lane; c < end; c += GROUP) log_sum += expf(x[start + c] - largest);
            log_sum = logf(row_sum<GROUP>(log_sum));
        }
        for (int c = lane; c < end; c += GROUP) {
            float log_p = x[start + c] - largest - log_sum, share = targets.share(row, c, C);
            if (SOFTMAX) logp[start + c] = log_p;
            q[start + c] = share;
            if (share != 0) own -= share * log_p;  // probability 0 of a class that no target names
        }
        own = row_sum<GROUP>(own);
        if (lane == 0 && row < N) {
            if (reduction == NONE) loss[row] = own;
            total += own;
            count += targets.count(row, C);
        }
    }
    total = block_sum(total);
    count = block_sum(count);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) {
            partials[blockIdx.x] = total;
            partials[gridDim.x + blockIdx.x] = count;
        }
        if (!is_last_block()) return;
        total = count = 0;
        for (int block = threadIdx.x; block < gridDim.x; block += 256) {
            total += partials[block];
            count += partials[gridDim.x + block];
        }
        total = block_sum(total);
        count = block_sum(count);
    }
    if (threadIdx.x == 0) {
        *divisor = count;
        if (reduction != NONE) *loss = reduction == MEAN ? total / count : total;
    }
}

// gx = (softmax(x) * the sum of q - q) * the gradient of the row's loss; gy (N,) or a single number.
extern "C" __global__ void __launch_bounds__(256)
backward(float *__restrict__ gx, const float *__restrict__ gy, const float *__restrict__ logp,
         const float *__restrict__ q, const float *__restrict__ divisor, int N, int C,
         int reduction) {
    int row = blockIdx.x * (256 / GROUP) + threadIdx.x / GROUP, lane = threadIdx.x % GROUP;
    int end = row < N ? C : 0;
    size_t start = static_cast<size_t>(row) * C;
    float sum = 0, g = reduction != NONE ? gy[0] : row < N ? gy[row] : 0;
    if (reduction == MEAN && *divisor != 0) g /= *divisor;
    if (SOFTMAX) {
        for (int c = lane; c < end; c += GROUP) sum += q[start + c];
        sum = row_sum<GROUP>(sum);
    }
    for (int c = lane; c < end; c += GROUP) {
        float p = SOFTMAX ? expf(logp[start + c]) * sum : 0;
        gx[start + c] = (p - q[start + c]) * g;
    }
}
