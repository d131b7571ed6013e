// From the bytes of photos to a batch for the network.
//
// normalize: x, y (pixels, C), y = x * scale[c] - shift[c]. A thread turns as many bytes as make 16
// bytes of y, so that a warp writes 512 bytes in a row: one byte read and one float written for each
// number. gather: rows of a data set that lies on the device, 16 bytes by each thread where the rows
// allow it.
#include "device.cuh"

constexpr int VECTOR = 16 / sizeof(TY);

struct Channels {
    float scale[4], shift[4];
};

template <int N>
__device__ __forceinline__ void normalize_from(TY *y, const uint8_t *x, unsigned i, int C,
                                               const Channels &channels) {
    Vector<uint8_t, N> from = *reinterpret_cast<const Vector<uint8_t, N> *>(x + i);
    Vector<TY, N> to;
    int c = i % C;
#pragma unroll
    for (int k = 0; k < N; k++) {
        float scale = channels.scale[0], shift = channels.shift[0];
#pragma unroll
        for (int other = 1; other < 4; other++)
            if (c == other) scale = channels.scale[other], shift = channels.shift[other];
        to.at[k] = as<TY>(from.at[k] * scale - shift);
        c = c + 1 == C ? 0 : c + 1;
    }
    *reinterpret_cast<Vector<TY, N> *>(y + i) = to;
}

extern "C" __global__ void __launch_bounds__(256)
normalize(TY *__restrict__ y, const uint8_t *__restrict__ x, Channels channels, int size, int C) {
    unsigned begin = (blockIdx.x * 256 + threadIdx.x) * VECTOR;
    unsigned end = min(begin + VECTOR, static_cast<unsigned>(size));
    if (reinterpret_cast<size_t>(x) % VECTOR == 0 && begin + VECTOR == end)
        normalize_from<VECTOR>(y, x, begin, C, channels);
    else
#pragma unroll 1
        for (unsigned i = begin; i < end; i++) normalize_from<1>(y, x, i, C, channels);
}

template <int N>
__device__ __forceinline__ void gather_words(uint8_t *y, const uint8_t *x,
                                             const long long *indices, int rows, int bytes) {
    int i = blockIdx.x * 256 + threadIdx.x, words = bytes / N, row = i / words;
    if (row >= rows) return;
    using Word = Vector<uint8_t, N>;
    reinterpret_cast<Word *>(y)[i] =
        reinterpret_cast<const Word *>(x + indices[row] * bytes)[i - row * words];
}

// y (rows, bytes) = rows `indices` of x (M, bytes); word: 16, 4 or 1, which divides bytes and x.
extern "C" __global__ void __launch_bounds__(256)
gather(void *y, const void *x, const long long *indices, int rows, int bytes, int word) {
    uint8_t *to = static_cast<uint8_t *>(y);
    const uint8_t *from = static_cast<const uint8_t *>(x);
    if (word == 16) gather_words<16>(to, from, indices, rows, bytes);
    if (word == 4) gather_words<4>(to, from, indices, rows, bytes);
    if (word == 1) gather_words<1>(to, from, indices, rows, bytes);
}
