// Depthwise convolution: a window of its own for each channel, groups equal to the channels.
//
// y[n,i,j,c] = finish(sum over u, v of x[n, i*SH + u*DH - ph, j*SW + v*DW - pw, c] * w[c,u,v])
//
// There is no sum over channels, so that tensor cores have nothing to do and memory is what it waits
// for: each pass reads its images once from it, and the windows' overlaps from the caches. A thread
// works on V channels (columns.cuh) of STRIP neighbouring pixels of a row, for which it reads each
// row of x under their windows once. The weights of a block's channels lie in shared memory, a tap's
// side by side; they are the same for all of its pixels.
//
// Compiled with TX, V, the window KH, KW, SH, SW, DH, DW, STRIP and, for the weights' gradient, ROWS.
#include "columns.cuh"
#include "finish.cuh"

constexpr int TAPS = KH * KW, WIDTH = 64;
constexpr int REACH = (STRIP - 1) * SW + (KW - 1) * DW + 1;  // pixels of x under a strip

// A strip: pixels (n, i, j) to (n, i, j + STRIP - 1) of images of OH x OW.
struct Strip {
    int n, i, j;
    __device__ __forceinline__ Strip(unsigned row, int OH, int OW) {
        unsigned strips = (OW + STRIP - 1) / STRIP, line = row / strips;
        j = (row - line * strips) * STRIP;
        n = line / OH;
        i = line - n * OH;
    }
};

// Row h of an image (n, H, W, C) from pixel `left` on: zeros outside. Pixels that no window uses, as
// with dilation, are not read: the compiler leaves out what has no effect.
__device__ __forceinline__ void load_row(Pack (&row)[REACH], const TX *x, int n, int h, int left,
                                         int H, int W, int C, int channel) {
    int first = (n * H + h) * W + left;
#pragma unroll
    for (int q = 0; q < REACH; q++) {
        row[q] = {};
        if (left + q >= 0 && left + q < W) row[q] = load(x + (first + q) * C + channel);
    }
}

// The weights (C, KH, KW) of the block's channels as [tap][channel], `turned` with the last tap first.
__device__ __forceinline__ void load_weights(float (&to)[TAPS][WIDTH], const float *w, int C,
                                             int lanes, bool turned) {
    int first = blockIdx.x * lanes * V, channels = min(lanes * V, C - first);
    for (int k = threadIdx.x; k < channels * TAPS; k += blockDim.x) {
        int tap = k % TAPS;
        to[turned ? TAPS - 1 - tap : tap][k / TAPS] = w[first * TAPS + k];
    }
    __syncthreads();
}

// y; rows are strips of it. `turned`, with y's and x's parts exchanged, it is gx where strides are 1.
extern "C" __global__ void __launch_bounds__(256, 2)
depthwise(const TX *__restrict__ x, const float *__restrict__ w, TX *__restrict__ y,
          const TX *__restrict__ residual, const float *b, const float *weight, const float *bias,
          const float *mean, const float *var, float eps, float low, float high, int turned,
          int rows, int lanes, int C, int H, int W, int OH, int OW, int ph, int pw) {
    __shared__ __align__(16) float weights[TAPS][WIDTH];
    load_weights(weights, w, C, lanes, turned);
    Columns at(C, lanes);
    if (!at.inside) return;
    Finish finish{b, weight, bias, mean, var, eps, low, high};
    Finish::Line lines[V];
    for (int v = 0; v < V; v++) lines[v] = finish.line(at.channel + v);
    for (unsigned row = at.row; row < rows; row += at.step) {
        Strip strip(row, OH, OW);
        float sums[STRIP][V] = {};
        for (int u = 0; u < KH; u++) {
            int h = strip.i * SH + u * DH - ph;
            if (h < 0 || h >= H) continue;
            Pack pixels[REACH];
            load_row(pixels, x, strip.n, h, strip.j * SW - pw, H, W, C, at.channel);
#pragma unroll
            for (int t = 0; t < KW; t++)
#pragma unroll
                for (int v = 0; v < V; v++) {
                    float factor = weights[u * KW + t][at.lane * V + v];
#pragma unroll
                    for (int p = 0; p < STRIP; p++)
                        sums[p][v] += factor * to_float(pixels[p * SW + t * DW].at[v]);
                }
        }
#pragma unroll
        for (int p = 0; p < STRIP; p++) {
            if (strip.j + p >= OW) continue;
            unsigned to = ((strip.n * OH + strip.i) * OW + strip.j + p) * C + at.channel;
            Pack added = residual ? load(residual + to) : Pack{};
            for (int v = 0; v < V; v++) {
                float sum = sums[p][v] * lines[v].factor + lines[v].summand;
                sums[p][v] = finish.clip(sum + to_float(added.at[v]));
            }
            store(y + to, sums[p]);
        }
    }
}

// gx for any strides; rows are pixels of x, each of which looks up the windows over it.
extern "C" __global__ void __launch_bounds__(256, 4)
depthwise_gradient(const TX *__restrict__ gy, const float *__restrict__ w, TX *__restrict__ gx,
                   int rows, int lanes, int C, int H, int W, int OH, int OW, int ph, int pw) {
    __shared__ __align__(16) float weights[TAPS][WIDTH];
    load_weights(weights, w, C, lanes, false);
    Columns at(C, lanes);
    if (!at.inside) return;
    for (unsigned row = at.row; row < rows; row += at.step) {
        int line = row / W, column = row - line * W, n = line / H;
        float sums[V] = {};
#pragma unroll
        for (int u = 0; u < KH; u++) {
            int top = line - n * H + ph - u * DH;  // where a window begins whose row u lies here
            if (top < 0 || top % SH || top / SH >= OH) continue;
#pragma unroll
            for (int t = 0; t < KW; t++) {
                int left = column + pw - t * DW;
                if (left < 0 || left % SW || left / SW >= OW) continue;
                Pack pack = load(gy + ((n * OH + top / SH) * OW + left / SW) * C + at.channel);
                for (int v = 0; v < V; v++)
                    sums[v] += weights[u * KW + t][at.lane * V + v] * to_float(pack.at[v]);
            }
        }
        store(gx + row * C + at.channel, sums);
    }
}

// gw[c,u,v] = the sum over y's pixels of gy * x: each block's part of it, (gridDim.y, C, KH, KW).
// Rows are strips of gy; blockIdx.z says which ROWS rows of the window, whose sums a thread keeps in
// registers. In the end they lie in shared memory as [tap][line][channel], and the lines are added.
extern "C" __global__ void __launch_bounds__(256, 2)
depthwise_weights(const TX *__restrict__ x, const TX *__restrict__ gy, float *__restrict__ parts,
                  int rows, int lanes, int C, int H, int W, int OH, int OW, int ph, int pw) {
    Columns at(C, lanes);
    float sums[ROWS][KW][V] = {};
    for (unsigned row = at.row; row < rows; row += at.step) {
        Strip strip(row, OH, OW);
        Pack gradients[STRIP];
#pragma unroll
        for (int p = 0; p < STRIP; p++) {
            gradients[p] = {};
            unsigned from = ((strip.n * OH + strip.i) * OW + strip.j + p) * C + at.channel;
            if (strip.j + p < OW) gradients[p] = load(gy + from);
        }
#pragma unroll
        for (int u = 0; u < ROWS; u++) {
            int h = strip.i * SH + (blockIdx.z * ROWS + u) * DH - ph;
            if (h < 0 || h >= H) continue;
            Pack pixels[REACH];
            load_row(pixels, x, strip.n, h, strip.j * SW - pw, H, W, C, at.channel);
#pragma unroll
            for (int t = 0; t < KW; t++)
#pragma unroll
                for (int p = 0; p < STRIP; p++)
#pragma unroll
                    for (int v = 0; v < V; v++)
                        sums[u][t][v] += to_float(gradients[p].at[v]) *
                                         to_float(pixels[p * SW + t * DW].at[v]);
        }
    }
    SHARED_MEMORY(float, all);
    int width = lanes * V, first = blockIdx.x * width;
    if (at.line < at.height)
#pragma unroll
        for (int u = 0; u < ROWS; u++)
#pragma unroll
            for (int t = 0; t < KW; t++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    all[((u * KW + t) * at.height + at.line) * width + at.lane * V + v] =
                        sums[u][t][v];
    __syncthreads();
    for (int k = threadIdx.x; k < ROWS * KW * width; k += blockDim.x) {
        int tap = k / width, c = k - tap * width, u = blockIdx.z * ROWS + tap / KW;
        if (u >= KH || first + c >= C) continue;
        float sum = 0;
        for (int line = 0; line < at.height; line++) sum += all[(tap * at.height + line) * width + c];
        parts[(blockIdx.y * C + first + c) * TAPS + u * KW + tap % KW] = sum;
    }
}
