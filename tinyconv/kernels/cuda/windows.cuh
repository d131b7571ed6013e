// Max pooling over channels-last images, for kernels that do something to the numbers on their way.
//
// The window is a constant of the compilation: KH, KW its size, SH, SW its stride, PH, PW its
// padding, DH, DW its dilation (rows, columns). WHOLE says that no window reaches over a border,
// TILES moreover that windows lie side by side: then each can write its own pixels of gx.
// Memory: x (N, H, W, C), y and winner (N, OH, OW, C); winner is the position u * KW + v of the
// largest pixel in its window. A thread works on V channels (see columns.cuh).
#pragma once

#include "columns.cuh"

#ifndef KH
#define KH 1
#define KW 1
#define SH 1
#define SW 1
#define PH 0
#define PW 0
#define DH 1
#define DW 1
#define WHOLE 1
#define TILES 1
#endif

// Loops over small windows are unrolled, so that all their loads are on their way at once.
constexpr bool SMALL = KH * KW <= 16;
constexpr int UNROLL_H = SMALL ? KH : 1, UNROLL_W = SMALL ? KW : 1;

using Winner = Vector<uint8_t, V>;

// Sizes of the images.
struct Sizes {
    int C, H, W, OH, OW;
};

// Pixel `row` of images of H x W pixels.
struct Pixel {
    int n, h, w;
    __device__ __forceinline__ Pixel(unsigned row, int H, int W) {
        unsigned line = row / W;
        w = row - line * W;
        n = line / H;
        h = line - n * H;
    }
};

// ReLU and its gradient's condition: LIMIT is 1 for ReLU, 6 for ReLU6, 0 for neither. NaN passes.
template <int LIMIT>
__device__ __forceinline__ float rectify(float f) {
    if (LIMIT && f <= 0) return 0;
    return LIMIT == 6 && f >= 6 ? 6 : f;
}
template <int LIMIT>
__device__ __forceinline__ bool passes(float y) {
    return !(LIMIT && y <= 0) && !(LIMIT == 6 && y >= 6);
}

// g = gy where ReLU let y through, else 0.
template <int LIMIT>
__device__ __forceinline__ void rectified_gradient(float (&g)[V], const Pack &gy, const Pack &y) {
    for (int v = 0; v < V; v++) g[v] = passes<LIMIT>(to_float(y.at[v])) ? to_float(gy.at[v]) : 0;
}

// The first kernel position of a window from pixel `start` on that is not in the border before it.
__device__ __forceinline__ int first_inside(int start, int dilation) {
    return start < 0 ? (dilation - 1 - start) / dilation : 0;
}

// The largest value(pixel, v) in the window of y's pixel `row`, and its position: of equal ones the
// first, NaN above all numbers. Windows of nothing but -inf are won by their first pixel inside.
template <typename Value>
__device__ __forceinline__ void best_in_window(float (&best)[V], Winner &winner, const TX *x,
                                               unsigned row, unsigned channel, const Sizes &s,
                                               Value value) {
    Pixel y(row, s.OH, s.OW);
    int top = y.h * SH - PH, left = y.w * SW - PW;
    int position[V];
    for (int v = 0; v < V; v++) {
        best[v] = -INFINITY;
        position[v] = first_inside(top, DH) * KW + first_inside(left, DW);
    }
#pragma unroll UNROLL_H
    for (int i = 0; i < KH; i++)
#pragma unroll UNROLL_W
        for (int j = 0; j < KW; j++) {
            int h = top + i * DH, w = left + j * DW;
            bool inside = WHOLE || (h >= 0 && h < s.H && w >= 0 && w < s.W);
            Pack pack = {};
            if (inside) pack = load(x + ((y.n * s.H + h) * s.W + w) * s.C + channel);
            for (int v = 0; v < V; v++) {
                float f = value(to_float(pack.at[v]), v);
                if (inside && (f > best[v] || f != f)) {
                    best[v] = f;
                    position[v] = i * KW + j;
                }
            }
        }
    for (int v = 0; v < V; v++) winner.at[v] = position[v];
}

// Calls write(at, g, read(at)) for pixels of x, where g is the sum of gradient(at) over the windows
// that the pixel has won; `at` is where the V numbers lie in x, and in gradient and winner in y.
//
// With TILES `row` counts windows, those included that would reach over the lower and right edge:
// a thread reads a window's gradient once and writes its KH * KW pixels. Else `row` counts pixels of
// x, and a thread looks up all windows over its pixel.
template <typename Gradient, typename Read, typename Write>
__device__ __forceinline__ void spread_to_winners(const uint8_t *winner, unsigned row,
                                                  unsigned channel, const Sizes &s,
                                                  Gradient gradient, Read read, Write write) {
    if constexpr (TILES) {
        Pixel y(row, (s.H + KH - 1) / KH, (s.W + KW - 1) / KW);
        float g[V] = {};
        Winner won = {};
        if (y.h < s.OH && y.w < s.OW) {
            unsigned from = ((y.n * s.OH + y.h) * s.OW + y.w) * s.C + channel;
            won = *reinterpret_cast<const Winner *>(winner + from);
            gradient(g, from);
        }
        for (int first = 0; first < KH; first += UNROLL_H) {
            Pack packs[UNROLL_H][KW];
            unsigned corner = ((y.n * s.H + y.h * KH + first) * s.W + y.w * KW) * s.C + channel;
            int rows = min(UNROLL_H, s.H - y.h * KH - first), columns = min(KW, s.W - y.w * KW);
#pragma unroll
            for (int i = 0; i < UNROLL_H; i++)
#pragma unroll
                for (int j = 0; j < KW; j++)
                    if (i < rows && j < columns)
                        packs[i][j] = read(corner + (i * s.W + j) * s.C);
#pragma unroll
            for (int i = 0; i < UNROLL_H; i++)
#pragma unroll
                for (int j = 0; j < KW; j++) {
                    float share[V];
                    for (int v = 0; v < V; v++)
                        share[v] = won.at[v] == (first + i) * KW + j ? g[v] : 0;
                    if (i < rows && j < columns)
                        write(corner + (i * s.W + j) * s.C, share, packs[i][j]);
                }
        }
    } else {
        Pixel x(row, s.H, s.W);
        Pack pack = read(row * s.C + channel);
        float sum[V] = {};
#pragma unroll UNROLL_H
        for (int i = 0; i < KH; i++) {
            int top = x.h + PH - i * DH;  // where a window begins whose kernel row i lies here
            if (top < 0 || top % SH || top / SH >= s.OH) continue;
#pragma unroll UNROLL_W
            for (int j = 0; j < KW; j++) {
                int left = x.w + PW - j * DW;
                if (left < 0 || left % SW || left / SW >= s.OW) continue;
                unsigned from = ((x.n * s.OH + top / SH) * s.OW + left / SW) * s.C + channel;
                Winner won = *reinterpret_cast<const Winner *>(winner + from);
                float g[V];
                gradient(g, from);
                for (int v = 0; v < V; v++) sum[v] += won.at[v] == i * KW + j ? g[v] : 0;
            }
        }
        write(row * s.C + channel, sum, pack);
    }
}
