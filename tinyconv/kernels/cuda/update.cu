// The optimisers' updates, all parameters in one launch, and what mixed precision needs around them.
//
// The addresses of all parameters' arrays come as one argument by value (a launch takes up to 4096
// bytes): no copy to the device, so that a captured launch stays right. The numbers of all
// parameters are cut into pieces of 128, none across two parameters; a warp works on consecutive
// pieces, a lane on four numbers at a time. So many small parameters fill few blocks, and a large
// one the whole card. Each array is read once and, if it changes, written once: Adam moves 28 bytes
// for each number. Learning rate, step and loss scale are read from device memory.
#include "rows.cuh"

constexpr int PIECE = 128;

// Up to N rows of addresses, a parameter each: how many numbers it has, and which piece, counted
// over all of them, is its first. The last entry of `first` is the number of pieces.
template <typename Row, int N>
struct Table {
    Row row[N];
    int size[N];
    int first[N + 1];
    int rows;
};

// Calls work(parameter, where in it, whether it is another one than before) for each piece that
// falls to this warp.
template <typename Row, int N, typename Work>
__device__ __forceinline__ void for_each_piece(const Table<Row, N> &table, Work work) {
    int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = gridDim.x * blockDim.x / 32;
    int pieces = table.first[table.rows], each = pieces / warps, rest = pieces % warps;
    int piece = warp * each + min(warp, rest), end = piece + each + (warp < rest);
    int i = 0, before = -1;
    for (int span = table.rows; piece < end && span > 1;) {  // the last whose first is <= piece
        int half = span / 2;
        if (table.first[i + half] <= piece) i += half;
        span -= half;
    }
    for (; piece < end; piece++) {
        while (table.first[i + 1] <= piece) i++;
        work(i, (piece - table.first[i]) * PIECE + threadIdx.x % 32 * 4, i != before);
        before = i;
    }
}

__device__ __forceinline__ bool is_aligned(const void *p) {
    return reinterpret_cast<size_t>(p) % 16 == 0;
}

// Up to four numbers; `whole` where there are four at an aligned address.
__device__ __forceinline__ void load(float (&to)[4], const float *from, int count, bool whole) {
    if (whole) {
        Vector<float, 4> vector = *reinterpret_cast<const Vector<float, 4> *>(from);
        for (int k = 0; k < 4; k++) to[k] = vector.at[k];
    } else {
        for (int k = 0; k < 4; k++) to[k] = k < count ? from[k] : 0;
    }
}
__device__ __forceinline__ void store(float *to, const float (&from)[4], int count, bool whole) {
    if (whole) {
        Vector<float, 4> vector;
        for (int k = 0; k < 4; k++) vector.at[k] = from[k];
        *reinterpret_cast<Vector<float, 4> *>(to) = vector;
    } else {
        for (int k = 0; k < 4; k++)
            if (k < count) to[k] = from[k];
    }
}

// Updates ------------------------------------------------------------------------------------------

// A parameter's arrays; `slots` are what the optimiser keeps, null where it does without.
struct Parameter {
    float *p;
    const float *g;
    const double *lr, *t;
    float *slots[3];
};
using Parameters = Table<Parameter, 60>;

// The fields of an update op: those that all have, and its own in their order there.
struct Settings {
    double own[5];
    float weight_decay, l1;
    int maximize;
};

__device__ __forceinline__ float with_decay(const Settings &settings, float p, float g) {
    if (settings.maximize) g = -g;
    if (settings.weight_decay != 0) g += settings.weight_decay * p;
    if (settings.l1 != 0) g += settings.l1 * (p > 0 ? 1.0f : p < 0 ? -1.0f : p);
    return g;
}

// A rule's `prepare` works out what is the same for all numbers of a parameter; `update` changes
// one number p by its gradient g and what the optimiser keeps, s. Before that p is multiplied by
// `kept`: Adam's weight decay apart from the gradient. Formulas: ops/update.py.
struct SGD {
    static constexpr float kept = 1;
    float lr, momentum, damping;
    bool nesterov;

    __device__ __forceinline__ void prepare(const Settings &settings, const Parameter &of) {
        lr = static_cast<float>(*of.lr);
        momentum = static_cast<float>(settings.own[0]);
        damping = *of.t == 1 ? 1.0f : static_cast<float>(1 - settings.own[1]);
        nesterov = settings.own[2] != 0;
    }
    __device__ __forceinline__ void update(float &p, float g, float (&s)[3]) const {
        if (momentum != 0) {
            s[0] = momentum * s[0] + damping * g;
            g = nesterov ? g + momentum * s[0] : s[0];
        }
        p -= lr * g;
    }
};

struct Adam {
    float step_size, correction, kept, new_1, old_2, new_2, eps;
    bool amsgrad;

    __device__ __forceinline__ void prepare(const Settings &settings, const Parameter &of) {
        double b1 = settings.own[0], b2 = settings.own[1], lr = *of.lr, t = *of.t;
        step_size = static_cast<float>(lr / (1 - pow(b1, t)));
        correction = static_cast<float>(sqrt(1 - pow(b2, t)));
        new_1 = static_cast<float>(1 - b1);
        old_2 = static_cast<float>(b2);
        new_2 = static_cast<float>(1 - b2);
        eps = static_cast<float>(settings.own[2]);
        kept = static_cast<float>(1 - lr * settings.own[3]);
        amsgrad = settings.own[4] != 0;
    }
    __device__ __forceinline__ void update(float &p, float g, float (&s)[3]) const {
        s[0] += new_1 * (g - s[0]);
        s[1] = old_2 * s[1] + new_2 * g * g;
        if (amsgrad) s[2] = s[2] >= s[1] || s[2] != s[2] ? s[2] : s[1];
        p -= step_size * s[0] / (sqrtf(amsgrad ? s[2] : s[1]) / correction + eps);
    }
};

struct RMSprop {
    static constexpr float kept = 1;
    float lr, old, fresh, eps, momentum;
    bool centered;

    __device__ __forceinline__ void prepare(const Settings &settings, const Parameter &of) {
        lr = static_cast<float>(*of.lr);
        old = static_cast<float>(settings.own[0]);
        fresh = static_cast<float>(1 - settings.own[0]);
        eps = static_cast<float>(settings.own[1]);
        momentum = static_cast<float>(settings.own[2]);
        centered = settings.own[3] != 0;
    }
    __device__ __forceinline__ void update(float &p, float g, float (&s)[3]) const {
        s[0] = old * s[0] + fresh * g * g;
        float variance = s[0];
        if (centered) {
            s[1] += fresh * (g - s[1]);
            variance -= s[1] * s[1];
        }
        float step = g / (sqrtf(variance) + eps);
        if (momentum != 0) step = s[2] = momentum * s[2] + step;
        p -= lr * step;
    }
};

// scaling: the scale that the gradients carry and whether one overflowed, or null.
template <typename Rule>
__device__ __forceinline__ void update_all(const Parameters &table, const Settings &settings,
                                           const float *scaling) {
    if (scaling && scaling[1] != 0) return;
    float scale = scaling ? scaling[0] : 1;
    Rule rule;
    for_each_piece(table, [&](int i, int at, bool another) {
        const Parameter &of = table.row[i];
        if (another) rule.prepare(settings, of);
        int count = table.size[i] - at;
        bool whole = count >= 4 && is_aligned(of.p) && is_aligned(of.g) &&
                     is_aligned(of.slots[0]) && is_aligned(of.slots[1]) && is_aligned(of.slots[2]);
        float p[4], g[4], s[3][4] = {};
        load(p, of.p + at, count, whole);
        load(g, of.g + at, count, whole);
        for (int k = 0; k < 3; k++)
            if (of.slots[k]) load(s[k], of.slots[k] + at, count, whole);
        for (int k = 0; k < 4; k++) {
            float slots[3] = {s[0][k], s[1][k], s[2][k]};
            if (scaling) g[k] /= scale;
            p[k] *= rule.kept;
            rule.update(p[k], with_decay(settings, p[k], g[k]), slots);
            for (int j = 0; j < 3; j++) s[j][k] = slots[j];
        }
        store(of.p + at, p, count, whole);
        for (int k = 0; k < 3; k++)
            if (of.slots[k]) store(of.slots[k] + at, s[k], count, whole);
    });
}

extern "C" __global__ void __launch_bounds__(256, 4)
sgd(Parameters table, Settings settings, const float *scaling) {
    update_all<SGD>(table, settings, scaling);
}
extern "C" __global__ void __launch_bounds__(256, 4)
adam(Parameters table, Settings settings, const float *scaling) {
    update_all<Adam>(table, settings, scaling);
}
extern "C" __global__ void __launch_bounds__(256, 4)
rmsprop(Parameters table, Settings settings, const float *scaling) {
    update_all<RMSprop>(table, settings, scaling);
}

// Around them --------------------------------------------------------------------------------------

// t += 1 for all t, whole numbers of 64 bits where size is 1, else doubles. A thread for each.
using Counts = Table<void *, 240>;

extern "C" __global__ void __launch_bounds__(256) count_steps(Counts table, const float *scaling) {
    int i = threadIdx.x;
    if (i >= table.rows || (scaling && scaling[1] != 0)) return;
    if (table.size[i])
        *static_cast<long long *>(table.row[i]) += 1;
    else
        *static_cast<double *>(table.row[i]) += 1;
}

// scaling[1] = whether a gradient holds infinity or NaN, in this table or, unless it is the `first`,
// in one before.
using Gradients = Table<const float *, 240>;
DEVICE_COUNTERS(bad_blocks, 1)

extern "C" __global__ void __launch_bounds__(256)
check_gradients(Gradients table, float *scaling, int first) {
    bool bad = false;
    for_each_piece(table, [&](int i, int at, bool) {
        const float *g = table.row[i];
        int count = table.size[i] - at;
        float four[4];
        load(four, g + at, count, count >= 4 && is_aligned(g));
        for (int k = 0; k < 4; k++) bad = bad || !(fabsf(four[k]) < INFINITY);
    });
    if (__syncthreads_or(bad) && threadIdx.x == 0) atomicAdd(&bad_blocks[0], 1u);
    if (is_last_block() && threadIdx.x == 0) {
        bool found = atomicExch(&bad_blocks[0], 0u) > 0;
        scaling[1] = found || (!first && scaling[1] != 0);
        if (found) scaling[2] = -1;
    }
}

// scaling: scale, whether a gradient overflowed, steps since the scale was changed (-1: overflow).
extern "C" __global__ void __launch_bounds__(32)
adjust_scale(float *scaling, float growth, float backoff, float interval) {
    if (threadIdx.x) return;
    bool overflow = scaling[2] < 0;
    float steps = overflow ? 0 : scaling[2] + 1;
    bool grown = steps == interval;
    bool finite = scaling[0] * growth < INFINITY;
    scaling[0] *= overflow ? backoff : grown && finite ? growth : 1;
    scaling[2] = grown ? 0 : steps;
}
