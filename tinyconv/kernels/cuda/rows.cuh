// Sums and maxima over the threads that work on one row: WIDTH of them side by side, a power of two
// up to 32, or else the whole block. And what is done once all blocks are through.
#pragma once

#include "device.cuh"

// Over the block (whole warps), in every thread; `combine` is warp_sum or warp_max, and `nothing`
// what changes no result. All threads of the block must come here.
template <typename Combine>
__device__ __forceinline__ float over_block(float value, float nothing, Combine combine) {
    __shared__ float of_warp[32];
    int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    value = combine(value);
    if (lane == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = combine(lane < warps ? of_warp[lane] : nothing);
    __syncthreads();  // the next call writes there again
    return value;
}

__device__ __forceinline__ float block_sum(float value) {
    return over_block(value, 0, [](float v) { return warp_sum(v); });
}

template <int WIDTH>
__device__ __forceinline__ float row_sum(float value) {
    if constexpr (WIDTH > 32) {
        return block_sum(value);
    } else {
        for (int distance = WIDTH / 2; distance; distance /= 2)
            value += __shfl_xor_sync(0xffffffffu, value, distance);
        return value;
    }
}

template <int WIDTH>
__device__ __forceinline__ float row_max(float value) {
    if constexpr (WIDTH > 32) {
        return over_block(value, -INFINITY, [](float v) { return warp_max(v); });
    } else {
        for (int distance = WIDTH / 2; distance; distance /= 2)
            value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
        return value;
    }
}

// How many blocks have come to is_last_block. The last sets it back to zero, so that kernels which
// follow one another on a stream can share it.
DEVICE_COUNTERS(blocks_done, 1)

// Whether this block is the last one of the launch to come here: it sees what the others have
// written before, and they have read all that they will. All threads of the block must come here.
__device__ __forceinline__ bool is_last_block() {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(&blocks_done[0], 1u) == gridDim.x - 1;
        if (last) blocks_done[0] = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}
