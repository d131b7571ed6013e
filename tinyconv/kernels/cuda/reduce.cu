// y[k1, part, k2] = scale * the sum of x[k1, r, k2] over the r of this part, x (K1, R, K2).
//
// A block's 256 threads are (rows, along, across): `across` stand side by side on k2, `along` on r,
// the rest on k1, all three powers of two, so that neighbours read neighbouring addresses whichever
// of the sizes is small. Each adds up every along-th number of its part; the sums along r are added
// in shared memory, always in the same order. Each number is read once.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(256)
sum_middle(TY *__restrict__ y, const TX *__restrict__ x, int K1, int R, int K2, int part,
           int parts, float scale, int across, int along) {
    __shared__ float sums[256];
    int thread = threadIdx.x, block = blockIdx.x, tiles = (K2 + across - 1) / across;
    int k2 = block % tiles * across + thread % across, first = thread / across % along;
    block /= tiles;
    int rows = 256 / (across * along), k1 = block / parts * rows + thread / (across * along);
    int number = block % parts;
    bool inside = k1 < K1 && k2 < K2;
    float sum = 0;
    if (inside) {
        const TX *from = x + static_cast<size_t>(k1) * R * K2 + k2;
        int end = min(R, (number + 1) * part);
#pragma unroll 4
        for (int r = number * part + first; r < end; r += along)
            sum += to_float(from[static_cast<size_t>(r) * K2]);
    }
    sums[thread] = sum;
    for (int half = along / 2; half; half /= 2) {
        __syncthreads();
        if (first < half) sums[thread] = sum = sum + sums[thread + half * across];
    }
    if (inside && first == 0)
        y[(static_cast<size_t>(k1) * parts + number) * K2 + k2] = as<TY>(sum * scale);
}
