// Max pooling, with ReLU before it if RELU is 1, average and adaptive average pooling.
//
// Work is cut as columns.cuh says, its rows being pixels of the result, or windows (windows.cuh). Max
// pooling forward reads x once and writes y and a byte for each of its numbers; backward reads gy and
// the winners (after ReLU y too) and writes gx once, whatever the windows: no atomics, no zeros
// written beforehand. Average pooling reads once and writes once alike; where windows overlap, what
// is read again comes from the caches.
#include "windows.cuh"

#ifndef RELU  // when it is compiled for average pooling
#define RELU 0
#endif
#ifndef ADAPTIVE  // for max pooling
#define ADAPTIVE 0
#define COUNT_BORDER 0
#endif

// Rows are y's pixels.
extern "C" __global__ void __launch_bounds__(256, 4)
max_pool(const TX *__restrict__ x, TX *__restrict__ y, uint8_t *__restrict__ winner, int rows,
         int lanes, int C, int H, int W, int OH, int OW) {
    Columns at(C, lanes);
    Sizes sizes{C, H, W, OH, OW};
    for (unsigned row = at.row; row < rows; row += at.step) {
        float best[V];
        Winner won;
        best_in_window(best, won, x, row, at.channel, sizes,
                       [](float f, int) { return rectify<RELU>(f); });
        store(y + row * C + at.channel, best);
        *reinterpret_cast<Winner *>(winner + row * C + at.channel) = won;
    }
}

// Rows are windows or x's pixels, see spread_to_winners.
extern "C" __global__ void __launch_bounds__(256, 4)
max_pool_gradient(const TX *__restrict__ gy, const TX *__restrict__ y,
                  const uint8_t *__restrict__ winner, TX *__restrict__ gx, int rows, int lanes,
                  int C, int H, int W, int OH, int OW) {
    Columns at(C, lanes);
    Sizes sizes{C, H, W, OH, OW};
    for (unsigned row = at.row; row < rows; row += at.step)
        spread_to_winners(
            winner, row, at.channel, sizes,
            [&](float (&g)[V], unsigned from) {
                rectified_gradient<RELU>(g, load(gy + from), RELU ? load(y + from) : Pack{});
            },
            [](unsigned) { return Pack{}; },
            [&](unsigned to, const float (&g)[V], Pack) { store(gx + to, g); });
}

// Which pixels along an axis are averaged for output i, and over how many: those outside count too
// where COUNT_BORDER. And which outputs pixel h is part of, from `begin` to `end`.
struct Span {
    int begin, end, count;
};

__device__ __forceinline__ Span span(int i, int n, int size, int kernel, int stride, int padding) {
    if constexpr (ADAPTIVE) {
        int begin = i * n / size, end = ((i + 1) * n + size - 1) / size;
        return {begin, end, end - begin};
    }
    int begin = i * stride - padding, end = min(begin + kernel, n + padding);
    int first = max(begin, 0), last = min(end, n);
    return {first, last, COUNT_BORDER ? end - begin : last - first};
}

__device__ __forceinline__ Span outputs(int h, int n, int size, int kernel, int stride, int padding) {
    if constexpr (ADAPTIVE) return {h * size / n, ((h + 1) * size + n - 1) / n, 0};
    int past = h + padding - kernel;  // the last window that ends before h begins here or before
    return {past < 0 ? 0 : past / stride + 1, min((h + padding) / stride + 1, size), 0};
}

// Rows are y's pixels, each one thread's or, if `shared`, a block's, whose lines share out the
// window. divisor replaces the number of pixels if it is not 0.
extern "C" __global__ void __launch_bounds__(512, 2)
average(const TX *__restrict__ x, TX *__restrict__ y, int rows, int lanes, int C, int H, int W,
        int OH, int OW, int divisor, int shared) {
    Columns at(C, lanes);
    unsigned first = shared ? blockIdx.y : at.row, step = shared ? gridDim.y : at.step;
    for (unsigned row = first; row < rows; row += step) {
        Pixel to(row, OH, OW);
        Span across = span(to.w, W, OW, KW, SW, PW), down = span(to.h, H, OH, KH, SH, PH);
        int width = across.end - across.begin, pixels = width * (down.end - down.begin);
        const TX *corner = x + ((to.n * H + down.begin) * W + across.begin) * C + at.channel;
        Sum sums[V] = {};
        if (at.inside)
#pragma unroll 4
            for (int k = shared ? at.line : 0; k < pixels; k += shared ? at.height : 1) {
                int h = k / width, w = k - h * width;
                Pack pack = load(corner + (h * W + w) * C);
                for (int v = 0; v < V; v++) sums[v].total += to_float(pack.at[v]);
            }
        if (shared) merge_lines(sums, at);
        if (!at.inside || (shared && at.line)) continue;
        float means[V];
        for (int v = 0; v < V; v++)
            means[v] = sums[v].total / (divisor ? divisor : across.count * down.count);
        store(y + row * C + at.channel, means);
    }
}

// Rows are x's pixels.
extern "C" __global__ void __launch_bounds__(256, 4)
average_gradient(const TX *__restrict__ gy, TX *__restrict__ gx, int rows, int lanes, int C, int H,
                 int W, int OH, int OW, int divisor) {
    Columns at(C, lanes);
    for (unsigned row = at.row; row < rows; row += at.step) {
        Pixel to(row, H, W);
        Span across = outputs(to.w, W, OW, KW, SW, PW), down = outputs(to.h, H, OH, KH, SH, PH);
        float sum[V] = {};
        for (int i = down.begin; i < down.end; i++)
            for (int j = across.begin; j < across.end; j++) {
                Pack pack = load(gy + ((to.n * OH + i) * OW + j) * C + at.channel);
                int count = span(i, H, OH, KH, SH, PH).count * span(j, W, OW, KW, SW, PW).count;
                float share = 1.0f / (divisor ? divisor : count);
                for (int v = 0; v < V; v++) sum[v] += to_float(pack.at[v]) * share;
            }
        store(gx + row * C + at.channel, sum);
    }
}
