// What is done to each sum of a convolution or matrix product before it is written.
#pragma once
#include "device.cuh"

// y = clip(norm(sum + b) + residual). Null pointers stand for what is not there; `norm` is a batch
// norm in evaluation (with `var`), which is a factor and a summand for each column n. Kernels take
// residual, b, weight, bias, mean, var, eps, low, high in this order: that of Finish in gemm.py.
struct Finish {
    const float *b, *weight, *bias, *mean, *var;
    float eps, low, high;

    struct Line {
        float factor, summand;
    };

    __device__ __forceinline__ Line line(int n) const {
        float shift = b ? b[n] : 0;
        if (!var) return {1, shift};
        float factor = (weight ? weight[n] : 1) / sqrtf(var[n] + eps);
        return {factor, (bias ? bias[n] : 0) + (shift - mean[n]) * factor};
    }

    // NaN stays NaN.
    __device__ __forceinline__ float clip(float y) const {
        return y < low ? low : y > high ? high : y;
    }
};
