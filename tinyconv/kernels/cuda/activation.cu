// Softmax and log-softmax along rows of C numbers, forward and backward.
//
// x, y (rows, C), a row without gaps. GROUP threads work on a row: up to a warp where rows are
// short, a block of 256 where they are long. A row is read once from memory; the further passes over
// it find it in the cache. LOG says whether y is the logarithm.
#include "rows.cuh"

constexpr int ROWS = 256 / GROUP;  // in a block

extern "C" __global__ void __launch_bounds__(256)
softmax(TX *__restrict__ y, const TX *__restrict__ x, int rows, int C) {
    int row = blockIdx.x * ROWS + threadIdx.x / GROUP, first = threadIdx.x % GROUP;
    int end = row < rows ? C : 0;  // all threads come to the sums
    size_t start = static_cast<size_t>(row) * C;
    float largest = -INFINITY, sum = 0;
    for (int c = first; c < end; c += GROUP) largest = fmaxf(largest, to_float(x[start + c]));
    largest = row_max<GROUP>(largest);  // it cancels: nothing overflows
    for (int c = first; c < end; c += GROUP) sum += expf(to_float(x[start + c]) - largest);
    sum = row_sum<GROUP>(sum);
    float log_sum = LOG ? logf(sum) : 0;
    for (int c = first; c < end; c += GROUP) {
        float shifted = to_float(x[start + c]) - largest;
        y[start + c] = as<TX>(LOG ? shifted - log_sum : expf(shifted) / sum);
    }
}

// gx = y (gy - the sum of gy y), or of the logarithm gx = gy - e^y * the sum of gy.
extern "C" __global__ void __launch_bounds__(256)
softmax_backward(TX *__restrict__ gx, const TX *__restrict__ gy, const TX *__restrict__ y, int rows,
                 int C) {
    int row = blockIdx.x * ROWS + threadIdx.x / GROUP, first = threadIdx.x % GROUP;
    int end = row < rows ? C : 0;
    size_t start = static_cast<size_t>(row) * C;
    float sum = 0;
    for (int c = first; c < end; c += GROUP) {
        float g = to_float(gy[start + c]);
        sum += LOG ? g : g * to_float(y[start + c]);
    }
    sum = row_sum<GROUP>(sum);
    for (int c = first; c < end; c += GROUP) {
        float g = to_float(gy[start + c]), value = to_float(y[start + c]);
        gx[start + c] = as<TX>(LOG ? g - expf(value) * sum : value * (g - sum));
    }
}
