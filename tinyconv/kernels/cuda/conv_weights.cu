// The gradient of a convolution's weights, and on the way that of its bias.
//
//     gw[o][k] = sum over m of gy[m][o] * X[m][k]
//
// with the windows X[m][(u, v, c)] of conv.cu: m counts the pixels of gy (N, OH, OW, O), and X is
// gathered from x (N, H, W, C). Here the sum runs along the pixels. There are many of them for few
// sums, so they are cut into stretches, one for each block of a tile: each writes its part, and
// gemm.cu adds the parts up. That also keeps the sums short, which keeps their digits.
//
// Both matrices lie across k. A table in shared memory says where the windows of a step's pixels
// begin; there is one for each step in the ring, written a step ahead of the copies. gb, the sum of
// gy over the pixels, is taken from the tiles of gy by the blocks of the first columns, so that gy
// is not read a second time.
//
// Constants: TX, the type of images, which is that of the tiles, NUMBER.
#include "gemm.cuh"
#include "starts.cuh"

// The columns k of X, for sums over the pixels m: n is a number (u, v, c), k in the tile a pixel.
struct Columns {
    static constexpr bool ALONG = false, ROUNDED = false;
    static constexpr int ROWS = BLOCK_N;
    using Mine = Share<ALONG, ROWS, UNIT_X>;

    const TX *x;
    Start *starts;  // STAGES times DEPTH of them
    int H, W, C, OH, OW, stride_h, stride_w, padding_h, padding_w, pixels;
    int h, w, number;  // how far from the window's start the thread's unit lies
    bool inside;       // whether it is one of the K numbers of a window
    // The pixel (n, i, j) that thread k < DEPTH puts into the table next, and how far it is from
    // there to that of the step after, DEPTH pixels on.
    int pixel, n, i, j, over_n, over_i, over_j;

    __device__ __forceinline__ void begin(int step) {
        pixel = step * DEPTH + threadIdx.x;
        j = pixel % OW, i = pixel / OW % OH, n = pixel / OW / OH;
        over_j = DEPTH % OW, over_i = DEPTH / OW % OH, over_n = DEPTH / OW / OH;
    }

    __device__ __forceinline__ void prepare(int step) {
        if (threadIdx.x >= DEPTH) return;
        Start start{0, NOWHERE, NOWHERE};
        if (pixel < pixels) {
            int top = i * stride_h - padding_h, left = j * stride_w - padding_w;
            start = window_at(n, top, left, H, W, C);
        }
        starts[step % STAGES * DEPTH + threadIdx.x] = start;
        pixel += DEPTH, j += over_j, i += over_i, n += over_n;
        if (j >= OW) j -= OW, i++;
        if (i >= OH) i -= OH, n++;
    }

    __device__ __forceinline__ void copy_step(NUMBER *tile, int step) {
        const Start *table = starts + step % STAGES * DEPTH;
#pragma unroll
        for (int pass = 0; pass < Mine::PASSES; pass++) {
            int k = Mine::line(pass);
            Start start = table[k];
            bool valid = inside & start.inside(h, w, H, W);
            copy<Mine::COUNT>(tile + Tile<ALONG, ROWS>::at(Mine::place(), k),
                              x + (start.number + number), valid);
        }
    }
};

// gw (O, C, KH, KW) and gb (O,) or null, of x (N, H, W, C) and gy (N, OH, OW, O); where the steps
// are split, their parts: (O, KH, KW, C) and (O,) one behind the other, `part_size` numbers each.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    weight_gradient(const TX *__restrict__ x, const TX *__restrict__ gy, float *__restrict__ gw,
                    float *__restrict__ gb, int part_size, int N, int H, int W, int C, int OH,
                    int OW, int O, int KH, int KW, int stride_h, int stride_w, int padding_h,
                    int padding_w, int dilation_h, int dilation_w, int splits) {
    using Gradients = Matrix<false, BLOCK_M, UNIT_GY, TX>;
    SHARED_MEMORY(unsigned char, shared);
    Start *starts = reinterpret_cast<Start *>(shared + WORKSPACE<Gradients, Columns>);

    int K = KH * KW * C, pixels = N * OH * OW, tiles_n = (K + BLOCK_N - 1) / BLOCK_N;
    int m0 = blockIdx.x / tiles_n * BLOCK_M, n0 = blockIdx.x % tiles_n * BLOCK_N;
    int part = blockIdx.y, steps = (pixels + DEPTH - 1) / DEPTH;
    int first = static_cast<long long>(steps) * part / splits;
    int last = static_cast<long long>(steps) * (part + 1) / splits;

    int number = n0 + Columns::Mine::place(), c = number % C, tap = number / C;
    int h = tap / KW * dilation_h, w = tap % KW * dilation_w;
    Gradients gradients{gy + m0, O, O - m0, pixels};
    Columns columns{x, starts, H, W, C, OH, OW, stride_h, stride_w, padding_h, padding_w, pixels,
                    h, w, (h * W + w) * C + c, number < K};
    columns.begin(first);
    bool adds = gb && n0 == 0 && threadIdx.x < BLOCK_M;
    float sum = 0;
    auto add = [&](const NUMBER *tile) {
        if (adds) sum += sum_of_row<Gradients>(tile, threadIdx.x);
    };
    const float *sums_of_tile = multiply(gradients, columns, first, last - first, shared, add);

    size_t skipped = static_cast<size_t>(part) * part_size;
    if (adds && m0 + threadIdx.x < O) gb[skipped + m0 + threadIdx.x] = sum;
    auto put = [&](int row, int column, const Vector<float, VECTOR> &numbers) {
        int o = m0 + row, k = n0 + column;
        if (o >= O || k >= K) return;
        if (splits > 1) {
            write(gw + skipped + o * K + k, numbers);
            return;
        }
#pragma unroll
        for (int e = 0; e < VECTOR; e++)
            gw[(o * C + (k + e) % C) * (KH * KW) + (k + e) / C] = numbers.at[e];
    };
    for_each_vector<VECTOR>(sums_of_tile, put);
}
