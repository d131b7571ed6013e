// Batch norm, alone or with the ReLU and the max pool beside it:
// y = pool(rectify(norm(x))) or, with RELU_FIRST, pool(norm(rectify(x))).
//
// What each pass moves, for 20 x 64 x 254 x 254 float32 pooled 2 x 2 (x 330 MB, y 83, winner 21):
//   statistics     reads x                                   330 MB
//   normalise      reads x, writes y and winner              434 MB   (without a pool 660)
//   gradient_sums  reads gy, y, winner, x at the winners     517 MB   (without a pool 990)
//   gradient       reads gy, y, winner, x, writes gx         847 MB   (without a pool 1320)
// Without ReLU behind the norm y is not read; in evaluation there are no statistics, and gradient
// does not read x. Reductions and what follows from them are one launch: the block that is done last
// brings the others' results together (columns.cuh). Sums always have the same order.
//
// Compiled with TX, V (columns.cuh), TRAINING, RELU_FIRST and RELU_LAST (0: none, 1: ReLU, 6: ReLU6),
// POOLED and the window (windows.cuh). Statistics, parameters and their gradients are float32.
#include "windows.cuh"

// Mean of `count` numbers and the sum of their squared distances from it. Source of merge: Chan,
// Golub and LeVeque, 1983, "Algorithms for computing the sample variance".
struct Moments {
    float count, mean, squares;
    __device__ __forceinline__ void merge(const Moments &other) {
        float both = count + other.count, share = both > 0 ? other.count / both : 0;
        float distance = other.mean - mean;
        mean += distance * share;
        squares += other.squares + distance * distance * count * share;
        count = both;
    }
};

// mean and inverse_std of each channel, and the running statistics, if there are any, moved. Rows are
// x's pixels; unbias is n / (n - 1).
//
// Squares of numbers far from zero would lose the digits of a small variance. So a thread measures
// them from its first number, and means are told from the channel's first number: as that belongs to
// the data, it can be no further away than the variance allows.
extern "C" __global__ void __launch_bounds__(512, 2)
statistics(const TX *__restrict__ x, float *mean, float *inverse_std, float *running_mean,
           float *running_var, Moments *partials, int rows, int lanes, int C, float eps,
           float momentum, float unbias) {
    Columns at(C, lanes);
    float start[V] = {}, total[V] = {}, squares[V] = {}, count = 0;
    auto read = [&](unsigned row) { return load(x + row * C + at.channel); };
    if (at.row < rows) {
        Pack own = read(at.row);
        for (int v = 0; v < V; v++) start[v] = rectify<RELU_FIRST>(to_float(own.at[v]));
    }
    for_each_row<4>(at, rows, read, [&](const Pack &pack, unsigned) {
        count++;
        for (int v = 0; v < V; v++) {
            float distance = rectify<RELU_FIRST>(to_float(pack.at[v])) - start[v];
            total[v] += distance;
            squares[v] += distance * distance;
        }
    });
    float origin[V];
    Moments mine[V] = {};
    Pack first = at.inside ? read(0) : Pack{};
    for (int v = 0; v < V; v++) {
        origin[v] = rectify<RELU_FIRST>(to_float(first.at[v]));
        if (count == 0) continue;
        float mean = total[v] / count;
        mine[v] = {count, start[v] - origin[v] + mean, squares[v] - total[v] * mean};
    }
    if (!merge_blocks(mine, at, C, partials) || at.line || !at.inside) return;
    for (int v = 0; v < V; v++) {
        int c = at.channel + v;
        float batch_mean = origin[v] + mine[v].mean, var = mine[v].squares / rows;
        if (var < 0) var = 0;  // by rounding; a NaN stays
        mean[c] = batch_mean;
        inverse_std[c] = 1 / sqrtf(var + eps);
        if (running_mean) {
            running_mean[c] += momentum * (batch_mean - running_mean[c]);
            running_var[c] += momentum * (var * unbias - running_var[c]);
        }
    }
}

// y, and the pool's winner. Rows are y's pixels. In evaluation mean and inverse_std are written: what
// the running statistics say now.
extern "C" __global__ void __launch_bounds__(256, 4)
normalise(const TX *__restrict__ x, TX *__restrict__ y, uint8_t *__restrict__ winner, float *mean,
          float *inverse_std, const float *__restrict__ weight, const float *__restrict__ bias,
          const float *__restrict__ running_mean, const float *__restrict__ running_var, int rows,
          int lanes, int C, int H, int W, int OH, int OW, float eps) {
    Columns at(C, lanes);
    if (!at.inside) return;
    float shift[V], scale[V], offset[V];
    for (int v = 0; v < V; v++) {
        int c = at.channel + v;
        float inverse = TRAINING ? inverse_std[c] : 1 / sqrtf(running_var[c] + eps);
        shift[v] = TRAINING ? mean[c] : running_mean[c];
        scale[v] = weight ? inverse * weight[c] : inverse;
        offset[v] = bias ? bias[c] : 0;
        if (!TRAINING && blockIdx.y == 0 && at.line == 0) {
            mean[c] = shift[v];
            inverse_std[c] = inverse;
        }
    }
    // Rounded to what memory holds before it is compared, as the plain ops do one after another.
    auto value = [&](float f, int v) {
        float normalised = (rectify<RELU_FIRST>(f) - shift[v]) * scale[v] + offset[v];
        return rectify<RELU_LAST>(to_float(as<TX>(normalised)));
    };
    if constexpr (POOLED) {
        Sizes sizes{C, H, W, OH, OW};
        for (unsigned i = at.row; i < rows; i += at.step) {
            unsigned row = rows - 1 - i;
            float best[V];
            Winner won;
            best_in_window(best, won, x, row, at.channel, sizes, value);
            store(y + row * C + at.channel, best);
            *reinterpret_cast<Winner *>(winner + row * C + at.channel) = won;
        }
    } else {
        for_each_row<4, true>(
            at, rows, [&](unsigned row) { return load(x + row * C + at.channel); },
            [&](const Pack &pack, unsigned row) {
                float normalised[V];
                for (int v = 0; v < V; v++) normalised[v] = value(to_float(pack.at[v]), v);
                store(y + row * C + at.channel, normalised);
            });
    }
}

// Sums over a channel of the gradient g behind the norm, and of g * (x - mean).
struct Products {
    float g, product;
    __device__ __forceinline__ void merge(const Products &other) {
        g += other.g;
        product += other.product;
    }
};

// What lies at a pixel of gy: y only behind ReLU; x there or, pooled, at the winners.
struct Found {
    Pack gy, y, x;
};

// gweight and gbias. Rows are gy's pixels. Where ReLU lets nothing through, no x is looked for.
extern "C" __global__ void __launch_bounds__(512, 2)
gradient_sums(const TX *__restrict__ gy, const TX *__restrict__ y,
              const uint8_t *__restrict__ winner, const TX *__restrict__ x,
              const float *__restrict__ mean, const float *__restrict__ inverse_std,
              float *__restrict__ gweight, float *__restrict__ gbias, Products *partials, int rows,
              int lanes, int C, int H, int W, int OH, int OW) {
    Columns at(C, lanes);
    float shift[V] = {};
    if (at.inside)
        for (int v = 0; v < V; v++) shift[v] = mean[at.channel + v];
    auto read = [&](unsigned row) {
        unsigned from = row * C + at.channel;
        Found found = {};
        found.gy = load(gy + from);
        if constexpr (RELU_LAST) found.y = load(y + from);
        if constexpr (!POOLED) found.x = load(x + from);
        if constexpr (POOLED) {
            Winner won = *reinterpret_cast<const Winner *>(winner + from);
            Pixel pixel(row, OH, OW);
            for (int v = 0; v < V; v++) {
                int h = pixel.h * SH - PH + won.at[v] / KW * DH;
                int w = pixel.w * SW - PW + won.at[v] % KW * DW;
                if (!WHOLE && (h < 0 || h >= H || w < 0 || w >= W))
                    found.gy.at[v] = {};  // a window that met no pixel
                else if (passes<RELU_LAST>(to_float(found.y.at[v])))
                    found.x.at[v] = x[((pixel.n * H + h) * W + w) * C + at.channel + v];
            }
        }
        return found;
    };
    Products mine[V] = {};
    constexpr int UNROLL = V == 8 && POOLED ? 1 : 2;  // two times eight of each do not fit
    for_each_row<UNROLL>(at, rows, read, [&](const Found &found, unsigned) {
        float g[V];
        rectified_gradient<RELU_LAST>(g, found.gy, found.y);
        for (int v = 0; v < V; v++) {
            mine[v].g += g[v];
            mine[v].product += g[v] * (rectify<RELU_FIRST>(to_float(found.x.at[v])) - shift[v]);
        }
    });
    if (!merge_blocks(mine, at, C, partials) || at.line || !at.inside) return;
    for (int v = 0; v < V; v++) {
        gweight[at.channel + v] = mine[v].product * inverse_std[at.channel + v];
        gbias[at.channel + v] = mine[v].g;
    }
}

// gx = scale * g, and in training less what mean and variance owe to x (see ops/norm.py): a constant,
// and a slope times x - mean. g is what arrives from y: gy at the winners where ReLU let them through.
// Rows are x's pixels, or windows (see spread_to_winners); share is 1 / n.
extern "C" __global__ void __launch_bounds__(256, 3)
gradient(const TX *__restrict__ gy, const TX *__restrict__ y, const uint8_t *__restrict__ winner,
         const TX *__restrict__ x, TX *__restrict__ gx, const float *__restrict__ weight,
         const float *__restrict__ mean, const float *__restrict__ inverse_std,
         const float *__restrict__ gweight, const float *__restrict__ gbias, int rows, int lanes,
         int C, int H, int W, int OH, int OW, float share) {
    Columns at(C, lanes);
    if (!at.inside) return;
    float shift[V], scale[V], constant[V] = {}, slope[V] = {};
    for (int v = 0; v < V; v++) {
        int c = at.channel + v;
        shift[v] = mean[c];
        scale[v] = weight ? inverse_std[c] * weight[c] : inverse_std[c];
        if constexpr (TRAINING) {
            constant[v] = scale[v] * gbias[c] * share;
            slope[v] = scale[v] * gweight[c] * share * inverse_std[c];
        }
    }
    auto read = [&](unsigned from) { return TRAINING || RELU_FIRST ? load(x + from) : Pack{}; };
    auto write = [&](unsigned to, const float (&g)[V], const Pack &pack) {
        float result[V];
        for (int v = 0; v < V; v++) {
            float rectified = rectify<RELU_FIRST>(to_float(pack.at[v]));
            result[v] = scale[v] * g[v];
            if (TRAINING) result[v] -= constant[v] + slope[v] * (rectified - shift[v]);
            if (!passes<RELU_FIRST>(rectified)) result[v] = 0;
        }
        store(gx + to, result);
    };
    if constexpr (POOLED) {
        Sizes sizes{C, H, W, OH, OW};
        for (unsigned i = at.row; i < rows; i += at.step)
            spread_to_winners(
                winner, rows - 1 - i, at.channel, sizes,
                [&](float (&g)[V], unsigned from) {
                    rectified_gradient<RELU_LAST>(g, load(gy + from),
                                                  RELU_LAST ? load(y + from) : Pack{});
                },
                read, write);
    } else {
        for_each_row<2, true>(
            at, rows,
            [&](unsigned row) {
                unsigned from = row * C + at.channel;
                return Found{load(gy + from), RELU_LAST ? load(y + from) : Pack{}, read(from)};
            },
            [&](const Found &found, unsigned row) {
                float g[V];
                rectified_gradient<RELU_LAST>(g, found.gy, found.y);
                write(row * C + at.channel, g, found.x);
            });
    }
}
