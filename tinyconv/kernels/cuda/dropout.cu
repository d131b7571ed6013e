// Dropout: y = x * scale, scale being factor or 0 by a random number for each element.
//
// Number i of the stream is a hash of its seed and of i (SplitMix64, see ops/dropout.py), so that
// any thread can draw any of them. x, y, scale lie alike, as (N, P, C): C channels of P pixels; the
// numbers are drawn in the order (N, C, P). A thread works on 16 bytes. x is read, y and scale are
// written once; the last block moves the stream on.
#include "rows.cuh"

constexpr int VECTOR = 16 / sizeof(TX);

__device__ __forceinline__ unsigned long long mix(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

struct Stream {
    unsigned long long seed, position;
    float p, factor;
    int C, P;
};

// N elements from number i of memory on.
template <int N>
__device__ __forceinline__ void draw(TX *y, TX *scale, const TX *x, unsigned i,
                                     const Stream &stream) {
    Vector<TX, N> from = *reinterpret_cast<const Vector<TX, N> *>(x + i), scales, to;
#pragma unroll
    for (int k = 0; k < N; k++) {
        int row = (i + k) / stream.C, channel = (i + k) % stream.C, image = row / stream.P;
        int number = (image * stream.C + channel) * stream.P + row % stream.P;
        unsigned long long z = (stream.position + number + 1) * 0x9E3779B97F4A7C15ull;
        float uniform = static_cast<float>(mix(z ^ stream.seed) >> 40) * 0x1p-24f;
        scales.at[k] = as<TX>(uniform >= stream.p ? stream.factor : 0);
        to.at[k] = as<TX>(to_float(from.at[k]) * to_float(scales.at[k]));
    }
    *reinterpret_cast<Vector<TX, N> *>(scale + i) = scales;
    *reinterpret_cast<Vector<TX, N> *>(y + i) = to;
}

// y and scale begin at a multiple of 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
dropout(TX *__restrict__ y, TX *__restrict__ scale, const TX *__restrict__ x,
        unsigned long long *stream, float p, float factor, int size, int C, int P) {
    Stream now{mix(stream[0]), stream[1], p, factor, C, P};
    unsigned begin = (blockIdx.x * 256 + threadIdx.x) * VECTOR;
    unsigned end = min(begin + VECTOR, static_cast<unsigned>(size));
    bool aligned = reinterpret_cast<size_t>(x) % 16 == 0;
    if (aligned && begin + VECTOR == end)
        draw<VECTOR>(y, scale, x, begin, now);
    else
#pragma unroll 1
        for (unsigned i = begin; i < end; i++) draw<1>(y, scale, x, i, now);
    if (is_last_block() && threadIdx.x == 0) stream[1] = now.position + size;
}
