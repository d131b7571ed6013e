// Sums over the rows of a matrix (rows, C), for the gradient of a bias: one pass that reads x once.
//
// The rows are shared out among at most 264 blocks (two on each multiprocessor of an H100), the same
// number on every card, so that the order of the additions, and with it the result, is the same too.
// Thread, block, last block: a number goes through three short sums instead of a long one, which
// keeps the digits of float32. Work is cut as columns.cuh says.
#include "columns.cuh"

extern "C" __global__ void __launch_bounds__(512, 2)
channel_sums(const TX *__restrict__ x, float *__restrict__ sums, Sum *partials, int rows, int C,
             int lanes) {
    Columns at(C, lanes);
    Sum mine[V] = {};
    for_each_row<4>(
        at, rows, [&](unsigned row) { return load(x + row * C + at.channel); },
        [&](const Pack &pack, unsigned) {
            for (int v = 0; v < V; v++) mine[v].total += to_float(pack.at[v]);
        });
    if (merge_blocks(mine, at, C, partials) && at.line == 0 && at.inside)
        for (int v = 0; v < V; v++) sums[at.channel + v] = mine[v].total;
}
