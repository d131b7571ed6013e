// Convolution as a matrix product whose left matrix is never written down (implicit GEMM).
//
// Images lie channels last: x[n][h][w][c]. Let m count the pixels (n, i, j) of y, and k the numbers
// (u, v, c) that a window sees. Then, with h = i * stride - padding + u * dilation and w likewise,
//
//     y[m][o] = sum over k of X[m][k] * W[o][k]     X[m][(u, v, c)] = x[n][h][w][c], 0 outside
//
// The matrix X would have KH * KW times the numbers of x. Here its tiles are gathered from x when a
// block needs them, 16 bytes (4 or 8 channels of a pixel) at a time where C allows it. A table in
// shared memory says for each row of a tile where its window begins; along k a thread walks from
// tap to tap by additions.
//
// gx is the same product with gy in the place of x: pixel h of x was seen by the windows i = (h +
// padding - u * dilation) / stride, for those taps u for which that is whole. Pixels of one residue
// of h (and w) modulo the stride have the same taps, so every residue is a convolution of its own,
// whose windows walk over gy in steps of one pixel: blocks of all residues run together.
//
// The third direction, gw, is in conv_weights.cu.
//
// Constants: TX, the type of images; NUMBER, that of tiles (the same); TW, of w as it is read.
// CACHED_X: x goes through the first cache, where the next taps find it. With wide tiles the
// weights are most of the traffic, and the cache has no room beside the tiles.
#include "gemm.cuh"
#include "finish.cuh"
#include "starts.cuh"

// Rows of windows along one axis, in the image that they look at and the one that they make.
struct Axis {
    int windows;         // how many
    int first, step;     // window i makes pixel first + i * step
    int from, stride;    // its first tap lies on pixel from + i * stride
    int taps, reach;     // how many taps, and how many pixels from one to the next
    int tap, tap_step;   // which of w's taps these are: tap, tap + tap_step, ...
};

__device__ __forceinline__ Axis forward_axis(int OH, int KH, int stride, int padding,
                                             int dilation) {
    return {OH, 0, 1, -padding, stride, KH, dilation, 0, 1};
}

// The windows over gy that make the pixels of x with residue `first` modulo the stride.
__device__ __forceinline__ Axis backward_axis(int H, int KH, int stride, int padding, int dilation,
                                              int first) {
    int a = stride, divisor = dilation;  // the greatest common one
    while (a) {
        int rest = divisor % a;
        divisor = a;
        a = rest;
    }
    int tap_step = stride / divisor, tap = 0;
    while (tap < tap_step && (first + padding - tap * dilation) % stride) tap++;
    int taps = tap < tap_step && tap < KH ? (KH - tap - 1) / tap_step + 1 : 0;
    int windows = first < H ? (H - first - 1) / stride + 1 : 0;
    int from = taps ? (first + padding - tap * dilation) / stride : 0;
    return {windows, first, stride, from, 1, taps, -dilation / divisor, tap, tap_step};
}

// Where a thread's unit stands on k = (u, v, c), and how it goes on by DEPTH. WHOLE: C is a
// multiple of DEPTH; then all taps of DEPTH channels come one after the other, which read the same
// pixels.
struct Walk {
    int u, v, c, taps_h, taps_w, C, du, dv, dc;

    __device__ __forceinline__ Walk(int taps_h, int taps_w, int C, int step, int place)
        : taps_h(taps_h), taps_w(max(taps_w, 1)), C(C) {
        int k = step * DEPTH + place, tap = k / C;
        c = k % C;
        if constexpr (WHOLE) {
            int taps = max(taps_h * taps_w, 1);
            tap = step % taps;
            c = step / taps * DEPTH + place;
        }
        u = tap / this->taps_w, v = tap % this->taps_w;
        dc = DEPTH % C, dv = DEPTH / C % this->taps_w, du = DEPTH / C / this->taps_w;
    }

    __device__ __forceinline__ void advance() {
        if constexpr (WHOLE) {
            if (++v == taps_w) v = 0, u++;
            if (u == taps_h) u = 0, c += DEPTH;
        } else {
            c += dc, v += dv, u += du;
            if (c >= C) c -= C, v++;
            if (v >= taps_w) v -= taps_w, u++;
        }
    }

    __device__ __forceinline__ bool inside() const { return u < taps_h; }
};

// The rows m of X, k lies together.
struct Windows {
    static constexpr bool ALONG = true, ROUNDED = false;
    static constexpr int ROWS = BLOCK_M;
    using Mine = Share<ALONG, ROWS, UNIT_X>;

    const TX *x;
    const Start *starts;
    int H, W, reach_h, reach_w;
    Walk walk;

    __device__ __forceinline__ void prepare(int step) {}
    __device__ __forceinline__ void copy_step(NUMBER *tile, int step) {
        int h = walk.u * reach_h, w = walk.v * reach_w, number = (h * W + w) * walk.C + walk.c;
        bool inside = walk.inside();
#pragma unroll
        for (int pass = 0; pass < Mine::PASSES; pass++) {
            int row = Mine::line(pass);
            Start start = starts[row];
            bool valid = inside & start.inside(h, w, H, W);
            copy<Mine::COUNT, CACHED_X>(tile + Tile<ALONG, ROWS>::at(row, Mine::place()),
                                        x + (start.number + number), valid);
        }
        walk.advance();
    }
};

// The columns of W: w[n][tap][c], whose strides say where that lies.
struct Weights {
    static constexpr bool ALONG = true, ROUNDED = ROUNDED_W;
    static constexpr int ROWS = BLOCK_N;
    using Mine = Share<ALONG, ROWS, UNIT_W>;

    const TW *w;
    int columns, column_stride, tap_stride, channel_stride, KW;
    Axis vertical, horizontal;
    Walk walk;

    __device__ __forceinline__ void prepare(int step) {}
    __device__ __forceinline__ void copy_step(NUMBER *tile, int step) {
        int tap = (vertical.tap + walk.u * vertical.tap_step) * KW + horizontal.tap +
                  walk.v * horizontal.tap_step;
        int number = tap * tap_stride + walk.c * channel_stride;
        bool inside = walk.inside();
#pragma unroll
        for (int pass = 0; pass < Mine::PASSES; pass++) {
            int column = Mine::line(pass);
            copy<Mine::COUNT>(tile + Tile<ALONG, ROWS>::at(column, Mine::place()),
                              w + (column * column_stride + number), inside & (column < columns));
        }
        walk.advance();
    }
};

// y (N, OH, OW, O) of x (N, H, W, C), or of all that with gradients: gx of gy, whose sizes and
// channels are then called H, W, C here, and gx's OH, OW, O. A block makes one tile of one residue,
// of all sums or of those of one part of the steps; the latter go to `parts`.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    convolve(const TX *__restrict__ x, const TW *__restrict__ w, TX *__restrict__ y,
             float *__restrict__ parts, const TX *__restrict__ residual, const float *b,
             const float *weight, const float *bias, const float *mean, const float *var, float eps,
             float low, float high, int N, int H, int W, int C, int OH, int OW, int O, int KH,
             int KW, int stride_h, int stride_w, int padding_h, int padding_w, int dilation_h,
             int dilation_w, int column_stride, int tap_stride, int channel_stride, int splits) {
    SHARED_MEMORY(unsigned char, shared);
    Start *starts = reinterpret_cast<Start *>(shared + WORKSPACE<Windows, Weights>);
    int *places = reinterpret_cast<int *>(starts + BLOCK_M);  // where a row of the tile lies in y
    Finish::Line *lines = reinterpret_cast<Finish::Line *>(places + BLOCK_M);

    int tiles_n = (O + BLOCK_N - 1) / BLOCK_N;
    int m0 = blockIdx.x / tiles_n * BLOCK_M, n0 = blockIdx.x % tiles_n * BLOCK_N;
    int residue = blockIdx.y, part = blockIdx.z;

    Axis vertical, horizontal;
    if constexpr (BACKWARD) {
        int h = residue / stride_w, w = residue % stride_w;
        vertical = backward_axis(OH, KH, stride_h, padding_h, dilation_h, h);
        horizontal = backward_axis(OW, KW, stride_w, padding_w, dilation_w, w);
    } else {
        vertical = forward_axis(OH, KH, stride_h, padding_h, dilation_h);
        horizontal = forward_axis(OW, KW, stride_w, padding_w, dilation_w);
    }
    int in_image = vertical.windows * horizontal.windows, M = N * in_image;
    if (m0 >= M) return;

    for (int row = threadIdx.x; row < BLOCK_M; row += THREADS) {
        int n = (m0 + row) / in_image, pixel = (m0 + row) % in_image;
        int i = pixel / horizontal.windows, j = pixel % horizontal.windows;
        bool there = m0 + row < M;
        starts[row] = there ? window_at(n, vertical.from + i * vertical.stride,
                                        horizontal.from + j * horizontal.stride, H, W, C)
                            : Start{0, NOWHERE, NOWHERE};
        int h = vertical.first + i * vertical.step, w = horizontal.first + j * horizontal.step;
        places[row] = there ? ((n * OH + h) * OW + w) * O : -1;
    }
    Finish finish{b, weight, bias, mean, var, eps, low, high};
    for (int n = threadIdx.x; n < min(BLOCK_N, O - n0); n += THREADS)
        lines[n] = finish.line(n0 + n);

    int taps = vertical.taps * horizontal.taps, steps = (taps * C + DEPTH - 1) / DEPTH;
    int first = static_cast<long long>(steps) * part / splits;
    int last = static_cast<long long>(steps) * (part + 1) / splits;
    Walk of_x(vertical.taps, horizontal.taps, C, first, Windows::Mine::place());
    Walk of_w(vertical.taps, horizontal.taps, C, first, Weights::Mine::place());
    Windows windows{x, starts, H, W, vertical.reach, horizontal.reach, of_x};
    Weights weights{w + n0 * column_stride, O - n0, column_stride, tap_stride, channel_stride, KW,
                    vertical, horizontal, of_w};
    const float *sums_of_tile =
        multiply(windows, weights, first, last - first, shared, [](const NUMBER *) {});

    for_each_vector<VECTOR>(sums_of_tile, [&](int row, int column, Vector<float, VECTOR> &sums) {
        if (places[row] < 0 || n0 + column >= O) return;
        int to = places[row] + n0 + column;
        if (splits > 1) {
            write(parts + static_cast<size_t>(part) * N * OH * OW * O + to, sums);
            return;
        }
        Vector<TX, VECTOR> added = {};
        if (residual) added = *reinterpret_cast<const Vector<TX, VECTOR> *>(residual + to);
#pragma unroll
        for (int e = 0; e < VECTOR; e++) {
            Finish::Line line = lines[column + e];
            float sum = sums.at[e] * line.factor + line.summand;
            sums.at[e] = finish.clip(residual ? sum + to_float(added.at[e]) : sum);
        }
        write(y + to, sums);
    });
}
