// What a training counts: losses, and rows of scores x (N, C) whose largest is the target's.
//
// One block does it all, GROUP threads on a row, and adds to the totals in device memory: batches
// are small, and the sum is the same every time. LABEL is the type of the targets, class numbers (N,)
// or, with PROBABILITIES, float (N, C).
#include "rows.cuh"

// The first of the largest numbers of a row, as NumPy's argmax: NaN counts as larger than any.
struct Largest {
    float value;
    int place;

    __device__ __forceinline__ void take(float other, int where) {
        bool greater = other > value || (other != other && value == value);
        bool equal = other == value || (other != other && value != value);
        if (greater || (equal && where < place)) value = other, place = where;
    }
};

template <typename T>
__device__ __forceinline__ int argmax(const T *row, int end) {
    Largest found{-INFINITY, 0x7fffffff};
    for (int c = threadIdx.x % GROUP; c < end; c += GROUP) found.take(to_float(row[c]), c);
    for (int distance = GROUP / 2; distance; distance /= 2) {
        float value = __shfl_xor_sync(0xffffffffu, found.value, distance);
        int place = __shfl_xor_sync(0xffffffffu, found.place, distance);
        found.take(value, place);
    }
    return found.place;
}

// totals += (N * loss, rows whose largest number is the target's), by one block.
extern "C" __global__ void __launch_bounds__(1024)
tally(double *totals, const float *loss, const TX *__restrict__ x,
      const LABEL *__restrict__ target, int N, int C) {
    float correct = 0;
    for (int base = 0; base < N; base += 1024 / GROUP) {
        int row = base + threadIdx.x / GROUP, end = row < N ? C : 0, label = -1;
        size_t start = static_cast<size_t>(row) * C;
        int found = argmax(x + start, end);
        if constexpr (PROBABILITIES)
            label = argmax(target + start, end);
        else if (row < N)
            label = static_cast<int>(target[row]);
        if (threadIdx.x % GROUP == 0 && row < N && found == label) correct += 1;
    }
    correct = block_sum(correct);
    if (threadIdx.x == 0) {
        totals[0] += static_cast<double>(*loss) * N;
        totals[1] += correct;
    }
}
