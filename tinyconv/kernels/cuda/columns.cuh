// Work on a matrix (rows, C) of TX, channels-last images with their pixels as rows: which thread
// takes what, and how the threads of a column bring together what they found, in a fixed order.
//
// A thread takes V neighbouring channels (one access of at most 16 bytes) of every step-th row. A
// block is `height` lines of `lanes` threads, at most 64 channels wide, so that neighbouring threads
// read neighbouring memory; blockIdx.x says which channels, blockIdx.y which rows.
#pragma once

#include "device.cuh"

struct Columns {
    int lanes, height, lane, line;
    unsigned channel, row, step;  // the first channel; the first row and the distance to the next
    bool inside;                  // whether the thread has channels at all

    // Threads that are left over start behind every row.
    __device__ __forceinline__ Columns(int C, int lanes) : lanes(lanes) {
        height = blockDim.x / lanes;
        lane = threadIdx.x % lanes;
        line = threadIdx.x / lanes;
        channel = (blockIdx.x * lanes + lane) * V;
        inside = line < height && channel < C;
        row = inside ? blockIdx.y * height + line : 0xffffffffu;
        step = gridDim.y * height;
    }
};

// A thread's V numbers at an address: they stay as they lie in memory until they are used.
using Pack = Vector<TX, V>;

__device__ __forceinline__ Pack load(const TX *address) {
    return *reinterpret_cast<const Pack *>(address);
}

__device__ __forceinline__ void store(TX *address, const float (&values)[V]) {
    Pack pack;
    for (int v = 0; v < V; v++) pack.at[v] = as<TX>(values[v]);
    *reinterpret_cast<Pack *>(address) = pack;
}

// Calls use(read(row), row) for the thread's rows: the reads of UNROLL rows are on their way before
// the first is used. BACKWARD goes from the last row to the first: what an earlier pass has read last
// may still be in the cache.
template <int UNROLL, bool BACKWARD = false, typename Read, typename Use>
__device__ __forceinline__ void for_each_row(const Columns &at, unsigned rows, Read read, Use use) {
    for (unsigned first = at.row; first < rows; first += UNROLL * at.step) {
        decltype(read(first)) found[UNROLL];
        auto row = [&](int k) {
            unsigned i = first + k * at.step;
            return BACKWARD ? rows - 1 - i : i;  // not a row: beyond the last one
        };
#pragma unroll
        for (int k = 0; k < UNROLL; k++)
            if (row(k) < rows) found[k] = read(row(k));
#pragma unroll
        for (int k = 0; k < UNROLL; k++)
            if (row(k) < rows) use(found[k], row(k));
    }
}

// What is found in a column is a P with `merge`, which takes in what another thread has found.
struct Sum {
    float total;
    __device__ __forceinline__ void merge(const Sum &other) { total += other.total; }
};

// As in sums.py: threads in a block of a kernel that merges, and blocks of which gridDim.y > 1.
constexpr int REDUCING_THREADS = 512, REDUCING_BLOCKS = 264;

// `mine` of line 0 takes in those of all lines of the block, halving their number at each turn.
template <typename P>
__device__ __forceinline__ void merge_lines(P (&mine)[V], const Columns &at) {
    __shared__ P others[REDUCING_THREADS / 2 * V];
    for (int lines = at.height; lines > 1;) {
        int half = (lines + 1) / 2;
        if (at.line >= half && at.line < lines) {
            P *to = others + ((at.line - half) * at.lanes + at.lane) * V;
            for (int v = 0; v < V; v++) to[v] = mine[v];
        }
        __syncthreads();
        if (at.line < lines - half) {
            const P *from = others + (at.line * at.lanes + at.lane) * V;
            for (int v = 0; v < V; v++) mine[v].merge(from[v]);
        }
        __syncthreads();  // the next turn writes there again
        lines = half;
    }
}

// How many blocks of the same channels are done. The last one sets it back to zero, so that kernels
// which follow one another on a stream can share it. A grid with more columns of blocks than these
// has gridDim.y == 1, see cut() in sums.py, and counts nothing.
DEVICE_COUNTERS(blocks_done, REDUCING_BLOCKS)

// Whether this block is the last one of its channels; then `mine` of its line 0 has taken in those
// of all their blocks. `partials` (gridDim.y, C) is memory for what each block has found.
template <typename P>
__device__ __forceinline__ bool merge_blocks(P (&mine)[V], const Columns &at, int C, P *partials) {
    merge_lines(mine, at);
    if (gridDim.y == 1) return true;
    if (at.line == 0 && at.inside)
        for (int v = 0; v < V; v++) partials[blockIdx.y * C + at.channel + v] = mine[v];
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // what the block wrote is seen before its arrival, and the others' after
        last = atomicAdd(&blocks_done[blockIdx.x], 1u) == gridDim.y - 1;
        if (last) blocks_done[blockIdx.x] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!last) return false;
    for (int v = 0; v < V; v++) mine[v] = {};
    if (at.inside)
        for (unsigned block = at.line; block < gridDim.y; block += at.height)
            for (int v = 0; v < V; v++) mine[v].merge(partials[block * C + at.channel + v]);
    merge_lines(mine, at);
    return true;
}
