// The product of two matrices, for fully connected layers and matmul.
//
//     y[m][n] = sum over k of a[m][k] b[k][n] + bias[n]
//
// Each of a and b may lie along k in memory or across it (A_ALONG, B_ALONG), which makes all the
// transposes that the gradients need without a copy: y = x w^T has both along k, gx = gy w has w
// across, gw = gy^T x both. The tiles are those of gemm.cuh. A layer with few rows of x is bound by
// reading w once, which takes all multiprocessors: then k is split among them.
//
// Constants: SA, SB, TY, the types of a, b and y in memory; NUMBER, that of the tiles. float16 rows
// beside float32 weights (where rows are few) are widened on their way into the tile: TF32 holds all
// their bits.
#include "gemm.cuh"

// y (batch, M, N), all matrices of a batch one after the other; or, where k is split, float32 parts
// of `part_size` numbers. row_sums (M,), where they are wanted, are those of a over k (a across k):
// gb, the sum of gy's rows, on the way to gw.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    product(const SA *__restrict__ a, const SB *__restrict__ b, TY *__restrict__ y,
            float *__restrict__ parts, float *__restrict__ row_sums, const float *__restrict__ bias,
            int M, int N, int K, int part_size, int splits) {
    using Left = Matrix<A_ALONG, BLOCK_M, UNIT_A, SA>;
    using Right = Matrix<B_ALONG, BLOCK_N, UNIT_B, SB>;
    SHARED_MEMORY(unsigned char, shared);

    int tiles_n = (N + BLOCK_N - 1) / BLOCK_N;
    int m0 = blockIdx.x / tiles_n * BLOCK_M, n0 = blockIdx.x % tiles_n * BLOCK_N;
    int matrix = blockIdx.y, part = blockIdx.z, steps = (K + DEPTH - 1) / DEPTH;
    int first = static_cast<long long>(steps) * part / splits;
    int last = static_cast<long long>(steps) * (part + 1) / splits;

    a += matrix * M * K + m0 * (A_ALONG ? K : 1);
    b += matrix * N * K + n0 * (B_ALONG ? K : 1);
    Left left{a, A_ALONG ? K : M, M - m0, K};
    Right right{b, B_ALONG ? K : N, N - n0, K};
    float sum = 0;
    bool adds = !A_ALONG && row_sums && n0 == 0 && threadIdx.x < BLOCK_M;
    auto add = [&](const NUMBER *tile) {
        if (adds) sum += sum_of_row<Left>(tile, threadIdx.x);
    };
    const float *sums_of_tile = multiply(left, right, first, last - first, shared, add);

    size_t skipped = static_cast<size_t>(part) * part_size;
    if (adds && m0 + threadIdx.x < M) row_sums[skipped + m0 + threadIdx.x] = sum;
    for_each_vector<VECTOR>(sums_of_tile, [&](int row, int column, Vector<float, VECTOR> &sums) {
        int m = m0 + row, n = n0 + column;
        if (m >= M || n >= N) return;
        if (splits > 1) {
            write(parts + skipped + m * N + n, sums);
            return;
        }
#pragma unroll
        for (int e = 0; e < VECTOR; e++) sums.at[e] += bias ? bias[n + e] : 0;
        write(y + (matrix * M + m) * N + n, sums);
    });
}
