// Windows of an image: where they begin, and whether a tap of one lies inside of the image.
#pragma once
#include "device.cuh"

// Where a window begins: at which number of the images (n, h, w, c) and at which pixel.
struct __align__(8) Start {
    int number;
    short h, w;

    // Whether the pixel so many rows and columns further lies inside of an image (H, W).
    __device__ __forceinline__ bool inside(int rows, int columns, int H, int W) const {
        return (static_cast<unsigned>(h + rows) < static_cast<unsigned>(H)) &
               (static_cast<unsigned>(w + columns) < static_cast<unsigned>(W));
    }
};
constexpr short NOWHERE = -32768;  // the position of a window that has no tap inside

// The window whose first tap lies on pixel (h, w) of image n.
__device__ __forceinline__ Start window_at(int n, int h, int w, int H, int W, int C) {
    return {((n * H + h) * W + w) * C, static_cast<short>(h), static_cast<short>(w)};
}
