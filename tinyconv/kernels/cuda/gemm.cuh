// The matrix product of one block: what convolutions and fully connected layers have in common.
//
// A block computes a tile of BLOCK_M x BLOCK_N sums over k of a[m][k] b[k][n]. It walks along k in
// steps of DEPTH numbers, 128 bytes. The two tiles of a step are copied to shared memory while the
// warps multiply those of earlier steps (cp.async, STAGES steps in a ring). Each warp has WARP_M x
// WARP_N of the sums in registers: a number that it reads from shared memory serves so many
// products, as one that the block reads from memory serves BLOCK_M or BLOCK_N. At the end the sums
// go through shared memory once more, so that rows of the result are written 16 bytes at a time.
//
// The tiles hold float32 or float16 (NUMBER); the sums are float32. Tensor cores take float16 as it
// is and round float32 to TF32. With EXACT, float32 is multiplied as it is, without tensor cores.
//
// An operand says where its numbers come from: a plain matrix here, the windows of images in
// conv.cu. What it copies lies in its tile in one of two ways. ALONG: memory runs along k, a line
// holds the DEPTH numbers of one row m (or column n). Otherwise memory runs across k, and a line
// holds one k of all rows. The compiler's constants are chosen in gemm.py.
#pragma once
#include "device.cuh"

constexpr int THREADS = BLOCK_M / WARP_M * (BLOCK_N / WARP_N) * 32;
constexpr int DEPTH = 128 / sizeof(NUMBER);
// Floats in a row of the result's tile. 8 more than BLOCK_N: half a warp writes parts of four rows
// at once (Sums::stage), which then share no bank of shared memory.
constexpr int STAGED = BLOCK_N + 8;

template <typename A, typename B>
constexpr bool same = false;
template <typename A>
constexpr bool same<A, A> = true;

// Where number k of row r lies in a tile. Eight rows (or k's) of 16 bytes are read at once and must
// not share a bank of shared memory (32 of 4 bytes): ALONG, the 16-byte pieces of line r change
// places by an exclusive or with r; else lines are 8 numbers longer than they need to be.
template <bool ALONG, int ROWS>
struct Tile {
    static constexpr int NUMBERS = ALONG ? ROWS * DEPTH : (ROWS + 8) * DEPTH;
    static __device__ __forceinline__ int at(int r, int k) {
        constexpr int PIECE = 16 / sizeof(NUMBER);
        if constexpr (ALONG) return r * DEPTH + (((k / PIECE) ^ (r & 7)) * PIECE + k % PIECE);
        return k * (ROWS + 8) + r;
    }
};

// How the threads share the copying of a tile: each copies a unit of COUNT numbers (UNIT bytes of
// the tile) at `place` of PASSES lines, from `line` on.
template <bool ALONG, int ROWS, int UNIT>
struct Share {
    static constexpr int COUNT = UNIT / sizeof(NUMBER);
    static constexpr int UNITS = (ALONG ? DEPTH : ROWS) / COUNT;  // in a line
    static constexpr int LINES = THREADS / UNITS;                 // that are copied at once
    static constexpr int PASSES = (ALONG ? ROWS : DEPTH) / LINES;
    static_assert(PASSES * LINES == (ALONG ? ROWS : DEPTH), "no line is left over");
    static __device__ __forceinline__ int place() { return threadIdx.x % UNITS * COUNT; }
    static __device__ __forceinline__ int line(int pass) {
        return threadIdx.x / UNITS + pass * LINES;
    }
};

// A unit from global to shared memory, zeros where not `valid`. It goes on in the background, but
// not where the type changes or 2 bytes are alone: that the hardware cannot do. CACHED: it is
// likely to be read again soon.
template <int COUNT, bool CACHED = false, typename S>
__device__ __forceinline__ void copy(NUMBER *to, const S *from, bool valid) {
    constexpr int BYTES = COUNT * sizeof(NUMBER);
    if constexpr (!same<S, NUMBER> || BYTES < 4) {
        Vector<NUMBER, COUNT> numbers;
        Vector<S, COUNT> read = {};
        if (valid) read = *reinterpret_cast<const Vector<S, COUNT> *>(from);
#pragma unroll
        for (int i = 0; i < COUNT; i++) numbers.at[i] = as<NUMBER>(to_float(read.at[i]));
        *reinterpret_cast<Vector<NUMBER, COUNT> *>(to) = numbers;
    } else if constexpr (BYTES == 4) {
        copy_async_4(to, from, valid);
    } else if constexpr (BYTES == 8) {
        copy_async_8(to, from, valid);
    } else if constexpr (CACHED) {
        copy_async_16_cached(to, from, valid);
    } else {
        copy_async_16(to, from, valid);
    }
}

// An operand: a matrix of which one axis lies together in memory and the other one every `stride`.
// ALONG: that axis is k. `rows` and `depth` are what is left of the matrix from `from` on.
template <bool ALONG_, int ROWS_, int UNIT, typename S>
struct Matrix {
    static constexpr bool ALONG = ALONG_, ROUNDED = false;
    static constexpr int ROWS = ROWS_;
    using Mine = Share<ALONG, ROWS, UNIT>;

    const S *from;
    int stride, rows, depth;

    __device__ __forceinline__ void prepare(int step) {}
    __device__ __forceinline__ void copy_step(NUMBER *tile, int step) {
        int first = step * DEPTH;
#pragma unroll
        for (int pass = 0; pass < Mine::PASSES; pass++) {
            int line = Mine::line(pass), place = Mine::place();
            int r = ALONG ? line : place, k = ALONG ? place : line;
            int offset = ALONG ? r * stride + first + k : (first + k) * stride + r;
            copy<Mine::COUNT>(tile + Tile<ALONG, ROWS>::at(r, k), from + offset,
                              (r < rows) & (first + k < depth));
        }
    }
};

// The sum over the tile's k's of row r, where the tile lies across k: neighbours read neighbours.
template <class Operand>
__device__ __forceinline__ float sum_of_row(const NUMBER *tile, int r) {
    float sum = 0;
#pragma unroll 8
    for (int k = 0; k < DEPTH; k++) sum += to_float(tile[Tile<false, Operand::ROWS>::at(r, k)]);
    return sum;
}

// Where the warp's part of the sums begins.
__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 % (BLOCK_M / WARP_M) * WARP_M; }
__device__ __forceinline__ int warp_column() {
    return threadIdx.x / 32 / (BLOCK_M / WARP_M) * WARP_N;
}

#if EXACT

// The 32 lanes are 8 x 4; each has every 8th row and every 4th column of the warp's part (or such
// groups of V of them, where those lie together in the tile).
template <class A, class B>
struct Sums {
    static constexpr int ROWS = WARP_M / 8, COLUMNS = WARP_N / 4;
    static constexpr int VA = ROWS < 4 ? ROWS : 4, VB = COLUMNS < 4 ? COLUMNS : 4;
    float at[ROWS][COLUMNS] = {};

    static __device__ __forceinline__ int lane_row() { return threadIdx.x % 8; }
    static __device__ __forceinline__ int lane_column() { return threadIdx.x / 8 % 4; }

    // Which row (column) number i of the lane is: of LANES lanes this is lane `mine`.
    template <bool ALONG, int LANES, int V>
    static __device__ __forceinline__ int index(int mine, int i) {
        return ALONG ? mine + LANES * i : (mine + i / V * LANES) * V + i % V;
    }

    // Numbers i to i + V for four k's, as to[k][i].
    template <class Operand, int LANES, int V>
    static __device__ __forceinline__ void load(float (&to)[4][V], const NUMBER *tile, int first,
                                                int mine, int i, int k) {
        using Place = Tile<Operand::ALONG, Operand::ROWS>;
        constexpr bool ALONG = Operand::ALONG;
#pragma unroll
        for (int e = 0; e < (ALONG ? V : 4); e++) {
            int r = first + index<ALONG, LANES, V>(mine, ALONG ? i + e : i);
            const NUMBER *from = tile + Place::at(r, ALONG ? k : k + e);
            auto read = *reinterpret_cast<const Vector<NUMBER, ALONG ? 4 : V> *>(from);
#pragma unroll
            for (int f = 0; f < (ALONG ? 4 : V); f++)
                to[ALONG ? f : e][ALONG ? e : f] = read.at[f];
        }
    }

    __device__ __forceinline__ void add(const NUMBER *a, const NUMBER *b) {
#pragma unroll 1
        for (int k = 0; k < DEPTH; k += 4) {
            float left[ROWS / VA][4][VA];
#pragma unroll
            for (int i = 0; i < ROWS / VA; i++)
                load<A, 8, VA>(left[i], a, warp_row(), lane_row(), i * VA, k);
#pragma unroll
            for (int j = 0; j < COLUMNS; j += VB) {
                float right[4][VB];
                load<B, 4, VB>(right, b, warp_column(), lane_column(), j, k);
#pragma unroll
                for (int d = 0; d < 4; d++)
#pragma unroll
                    for (int i = 0; i < ROWS; i++)
#pragma unroll
                        for (int e = 0; e < VB; e++)
                            at[i][j + e] += left[i / VA][d][i % VA] * right[d][e];
            }
        }
    }

    __device__ __forceinline__ void stage(float *staged) const {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                int row = warp_row() + index<A::ALONG, 8, VA>(lane_row(), i);
                int column = warp_column() + index<B::ALONG, 4, VB>(lane_column(), j);
                staged[row * STAGED + column] = at[i][j];
            }
    }
};

#else

// The sums as the products of tensor cores leave them, 16 x 8 each (see mma_tf32).
template <class A, class B>
struct Sums {
    float at[WARP_M / 16][WARP_N / 8][4] = {};

    // The registers of a product for 16 rows from r on and 32 bytes of k's from k on: four pieces
    // of 8x8 (or 8x4), first those of all rows, for a; or first those of all k's, for b, whose
    // columns 8 to 15 belong to another product.
    template <class Operand, bool ROWS_FIRST>
    static __device__ __forceinline__ void load(uint32_t (&to)[4], const NUMBER *tile, int r,
                                                int k) {
        using Place = Tile<Operand::ALONG, Operand::ROWS>;
        int lane = threadIdx.x % 32, piece = lane / 8;
        int down = (ROWS_FIRST ? piece % 2 : piece / 2) * 8;
        int deep = (ROWS_FIRST ? piece / 2 : piece % 2) * (DEPTH / 8);
        if constexpr (Operand::ALONG) {
            load_matrices(to, tile + Place::at(r + down + lane % 8, k + deep));
        } else if constexpr (sizeof(NUMBER) == 2) {
            load_matrices_transposed(to, tile + Place::at(r + down, k + deep + lane % 8));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = r + lane / 4 + (ROWS_FIRST ? i % 2 : i / 2) * 8;
                int depth = k + lane % 4 + (ROWS_FIRST ? i / 2 : i % 2) * 4;
                to[i] = __float_as_uint(tile[Place::at(row, depth)]);
            }
        }
        if constexpr (sizeof(NUMBER) == 4 && !Operand::ROUNDED) {
#pragma unroll
            for (int i = 0; i < 4; i++) to[i] = to_tf32(__uint_as_float(to[i]));
        }
    }

    __device__ __forceinline__ void add(const NUMBER *a, const NUMBER *b) {
#pragma unroll
        for (int k = 0; k < DEPTH; k += DEPTH / 4) {
            uint32_t left[WARP_M / 16][4], right[WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++) load<A, true>(left[i], a, warp_row() + 16 * i, k);
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++)
                load<B, false>(right[j], b, warp_column() + 16 * j, k);
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++) {
                    uint32_t columns[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
                    if constexpr (sizeof(NUMBER) == 2) mma_half(at[i][j], left[i], columns);
                    else mma_tf32(at[i][j], left[i], columns);
                }
        }
    }

    __device__ __forceinline__ void stage(float *staged) const {
        int row = warp_row() + threadIdx.x % 32 / 4, column = warp_column() + threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float *to = staged + (row + 16 * i + 8 * half) * STAGED + column + 8 * j;
                    *reinterpret_cast<Vector<float, 2> *>(to) = {at[i][j][2 * half],
                                                                 at[i][j][2 * half + 1]};
                }
    }
};

#endif

// Bytes of shared memory that multiply() takes: the ring of tiles, then the tile of the result.
template <class A, class B>
constexpr int RING =
    STAGES * (Tile<A::ALONG, A::ROWS>::NUMBERS + Tile<B::ALONG, B::ROWS>::NUMBERS) * sizeof(NUMBER);
template <class A, class B>
constexpr int WORKSPACE = RING<A, B> > BLOCK_M * STAGED * 4 ? RING<A, B> : BLOCK_M * STAGED * 4;

// The sums over `steps` steps from step `first` on; returns where they lie at the end, row m from
// number m * STAGED on, in the place of the ring. each(tile of a) is called at every step. What a
// step of an operand needs in shared memory beside its tile, prepare() writes, a barrier or more
// before copy_step().
template <class A, class B, class Each>
__device__ __forceinline__ const float *multiply(A &a, B &b, int first, int steps,
                                                 unsigned char *workspace, Each each) {
    NUMBER *ring = reinterpret_cast<NUMBER *>(workspace);
    constexpr int A_NUMBERS = Tile<A::ALONG, A::ROWS>::NUMBERS;
    constexpr int B_NUMBERS = Tile<B::ALONG, B::ROWS>::NUMBERS;
    NUMBER *b_ring = ring + STAGES * A_NUMBERS;
    auto copy_step = [&](int step) {
        if (step < steps) {
            a.copy_step(ring + step % STAGES * A_NUMBERS, first + step);
            b.copy_step(b_ring + step % STAGES * B_NUMBERS, first + step);
        }
        commit_copies();
    };
    for (int step = 0; step < STAGES; step++) a.prepare(first + step), b.prepare(first + step);
    __syncthreads();
    for (int step = 0; step < STAGES - 1; step++) copy_step(step);

    Sums<A, B> sums;
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // all have copied this step, and nobody reads the one before any more
        a.prepare(first + step + STAGES), b.prepare(first + step + STAGES);
        copy_step(step + STAGES - 1);
        each(ring + step % STAGES * A_NUMBERS);
        sums.add(ring + step % STAGES * A_NUMBERS, b_ring + step % STAGES * B_NUMBERS);
    }
    wait_for_copies<0>();
    __syncthreads();
    float *staged = reinterpret_cast<float *>(workspace);
    sums.stage(staged);
    __syncthreads();
    return staged;
}

// put(row, column, numbers) for all sums in `staged`, WIDTH of a row at a time, in the order in
// which threads write together what lies together.
template <int WIDTH, class Put>
__device__ __forceinline__ void for_each_vector(const float *staged, Put put) {
    constexpr int PART = WIDTH < 4 ? WIDTH : 4, IN_ROW = BLOCK_N / WIDTH;
    for (int i = threadIdx.x; i < BLOCK_M * IN_ROW; i += THREADS) {
        int row = i / IN_ROW, column = i % IN_ROW * WIDTH;
        Vector<float, WIDTH> numbers;
#pragma unroll
        for (int e = 0; e < WIDTH; e += PART) {
            const float *from = staged + row * STAGED + column + e;
            auto part = *reinterpret_cast<const Vector<float, PART> *>(from);
#pragma unroll
            for (int f = 0; f < PART; f++) numbers.at[e + f] = part.at[f];
        }
        put(row, column, numbers);
    }
}

// Write numbers of any type, 16 bytes at a time at most.
template <typename TO, int WIDTH>
__device__ __forceinline__ void write(TO *to, const Vector<float, WIDTH> &numbers) {
    constexpr int PART = WIDTH * sizeof(TO) > 16 ? 16 / sizeof(TO) : WIDTH;
#pragma unroll
    for (int e = 0; e < WIDTH; e += PART) {
        Vector<TO, PART> part;
#pragma unroll
        for (int f = 0; f < PART; f++) part.at[f] = as<TO>(numbers.at[e + f]);
        *reinterpret_cast<Vector<TO, PART> *>(to + e) = part;
    }
}
