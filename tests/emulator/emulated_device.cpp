// The scheduler of the emulated device, and its memory with guard pages: see emulated_device.h.
#include "emulated_device.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulated {

// Fibres: a stack each, and a switch from one to another ------------------------------------------

constexpr size_t STACK = 128 << 10, PAGE = 4096;

#ifdef __x86_64__
struct Context {
    void *stack_pointer;
};
extern "C" void emulated_switch(Context *from, Context *to);
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
static void prepare(Context *context, unsigned char *stack, void (*run)()) {
    void **top = reinterpret_cast<void **>(stack + STACK);
    *--top = nullptr;                           // where `run` would return to; keeps the alignment
    *--top = reinterpret_cast<void *>(run);     // emulated_switch returns into it
    for (int i = 0; i < 6; i++) *--top = nullptr;  // the six registers
    context->stack_pointer = top;
}
#else
using Context = ucontext_t;
static void emulated_switch(Context *from, Context *to) { swapcontext(from, to); }
static void prepare(Context *context, unsigned char *stack, void (*run)()) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK;
    makecontext(context, run, 0);
}
#endif

enum State { READY, AT_BARRIER, IN_WARP, RETURNED };

struct Fibre : Thread {
    Context context;
    State state;
    int line, vote;               // at a barrier
    Vote how;
    unsigned mask;                // in a warp function
    void *slot;
    void (*perform)(void **);
};

struct Launch {
    void (*call)(void **);
    void **arguments;
    unsigned char *statics;  // the static shared memory of the kernel's file
    size_t static_bytes, dynamic_bytes;
    int threads;
};

extern "C" {
Thread *emulated_thread;
dim3 emulated_block_index, emulated_block_size, emulated_grid_size;
unsigned char *emulated_dynamic_shared;
}

static Fibre *fibres;
static unsigned char *stacks, *shared_end;
static Context scheduler;
static Launch launch;
static int at_barrier, returned, barrier_result;
static jmp_buf failed;       // where a launch goes on after an error
static char message[1024];   // of that error
static void *fault_at;       // the instruction that touched what it must not, or null

static Fibre &self() { return *static_cast<Fibre *>(emulated_thread); }

static void wait_in(State state) {
    self().state = state;
    emulated_switch(&self().context, &scheduler);
}

static void describe(char *to, size_t size, const char *what) {
    auto &b = emulated_block_index;
    auto &t = emulated_thread->index;
    snprintf(to, size, "%s (block %u, %u, %u; thread %u, %u, %u)", what, b.x, b.y, b.z, t.x, t.y,
             t.z);
}

extern "C" void emulated_error(const char *format, ...) {
    char what[800];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    describe(message, sizeof(message), what);
    longjmp(failed, 1);
}

// Barriers and warps ------------------------------------------------------------------------------

extern "C" int emulated_barrier(int line, int vote, Vote how) {
    self().line = line;
    self().vote = vote;
    self().how = how;
    at_barrier++;
    wait_in(AT_BARRIER);
    return barrier_result;
}

// Whether all threads of the block wait at one barrier; if so they go on.
static bool release_barrier() {
    if (at_barrier != launch.threads) return false;
    int count = 0;
    for (int i = 0; i < launch.threads; i++) {
        if (fibres[i].line != fibres[0].line || fibres[i].how != fibres[0].how) return false;
        count += fibres[i].vote;
    }
    Vote how = fibres[0].how;
    barrier_result = how == ANY ? count > 0 : how == ALL ? count == launch.threads : count;
    for (int i = 0; i < launch.threads; i++) fibres[i].state = READY;
    at_barrier = 0;
    return true;
}

// Whether all that `fibre` waits for in its warp have come; if so they go on.
static bool release_warp(Fibre &fibre) {
    int begin = (&fibre - fibres) / 32 * 32, end = min(begin + 32, launch.threads);
    void *slots[32] = {};
    for (int i = begin; i < end; i++) {
        Fibre &other = fibres[i];
        if (!(fibre.mask >> other.lane & 1) || other.state == RETURNED) continue;
        if (other.state != IN_WARP || other.mask != fibre.mask || other.perform != fibre.perform)
            return false;
        slots[other.lane] = other.slot;
    }
    fibre.perform(slots);
    for (int i = begin; i < end; i++)
        if (slots[fibres[i].lane]) fibres[i].state = READY;
    return true;
}

extern "C" void emulated_warp(unsigned mask, void *slot, void (*perform)(void **)) {
    Fibre &fibre = self();
    if (!(mask >> fibre.lane & 1))
        emulated_error("a warp function whose mask %08x leaves out the caller, lane %d", mask,
                       fibre.lane);
    fibre.mask = mask;
    fibre.slot = slot;
    fibre.perform = perform;
    fibre.state = IN_WARP;
    if (!release_warp(fibre)) emulated_switch(&fibre.context, &scheduler);
}

static void run_fibre() {
    launch.call(launch.arguments);
    returned++;
    Fibre &fibre = self();
    fibre.state = RETURNED;
    int begin = (&fibre - fibres) / 32 * 32, end = min(begin + 32, launch.threads);
    for (int i = begin; i < end; i++)  // those that waited for this one too
        if (fibres[i].state == IN_WARP) release_warp(fibres[i]);
    emulated_switch(&fibre.context, &scheduler);
}

static void deadlock() {
    int in_warp = 0, lines[2] = {0, 0};
    for (int i = 0; i < launch.threads; i++) {
        if (fibres[i].state == IN_WARP) in_warp++;
        if (fibres[i].state != AT_BARRIER) continue;
        if (!lines[0]) lines[0] = fibres[i].line;
        if (fibres[i].line != lines[0]) lines[1] = fibres[i].line;
    }
    char barriers[100] = "";
    if (lines[1]) snprintf(barriers, sizeof(barriers), " of lines %d and %d", lines[0], lines[1]);
    else if (lines[0]) snprintf(barriers, sizeof(barriers), " of line %d", lines[0]);
    emulated_error("deadlock: %d of %d threads wait at __syncthreads()%s, %d in a function of "
                   "their warp, %d have returned",
                   at_barrier, launch.threads, barriers, in_warp, returned);
}

// The threads run in rising order and, after each barrier, the other way round, so that a missing
// barrier shows whichever of two threads should have waited.
static void run_block(bool backward) {
    memset(launch.statics, 0xff, launch.static_bytes);
    memset(emulated_dynamic_shared, 0xff, shared_end - emulated_dynamic_shared);
    at_barrier = returned = 0;
    dim3 size = emulated_block_size;
    for (int i = 0; i < launch.threads; i++) {
        Fibre &fibre = fibres[i];
        unsigned u = static_cast<unsigned>(i);
        fibre.index = {u % size.x, u / size.x % size.y, u / size.x / size.y};
        fibre.lane = i % 32;
        fibre.copied = fibre.committed = 0;
        fibre.state = READY;
        prepare(&fibre.context, stacks + (i + 1) * (STACK + PAGE) - STACK, run_fibre);
    }
    while (returned < launch.threads) {
        bool ran = false;
        for (int k = 0; k < launch.threads; k++) {
            Fibre &fibre = fibres[backward ? launch.threads - 1 - k : k];
            if (fibre.state != READY) continue;
            ran = true;
            emulated_thread = &fibre;
            emulated_switch(&scheduler, &fibre.context);
        }
        if (release_barrier()) backward = !backward;
        else if (!ran) deadlock();
    }
    for (unsigned char *p = emulated_dynamic_shared + launch.dynamic_bytes; p < shared_end; p++)
        if (*p != 0xff) emulated_error("a write past the end of the dynamic shared memory");
}

// Asynchronous copies -----------------------------------------------------------------------------

extern "C" void emulated_check_shared(const void *address, int bytes) {
    auto *p = static_cast<const unsigned char *>(address);
    bool dynamic = p >= emulated_dynamic_shared && p + bytes <= shared_end;
    bool fixed = p >= launch.statics && p + bytes <= launch.statics + launch.static_bytes;
    if (!dynamic && !fixed) emulated_error("%p is not an address in shared memory", address);
    if (reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes))
        emulated_error("%p in shared memory is not aligned to %d bytes", address, bytes);
}

extern "C" void emulated_copy(void *shared, const void *global, int bytes, bool valid) {
    emulated_check_shared(shared, bytes);
    if (reinterpret_cast<uintptr_t>(global) % static_cast<uintptr_t>(bytes))
        emulated_error("copy_async: %p in global memory is not aligned to %d bytes", global, bytes);
    Thread &t = *emulated_thread;
    if (t.copied == static_cast<int>(sizeof(t.copies) / sizeof(t.copies[0])))
        emulated_error("copy_async: %d copies of one thread are under way", t.copied);
    t.copies[t.copied++] = {shared, global, bytes, valid};
    memset(shared, 0xff, static_cast<size_t>(bytes));
}

extern "C" void emulated_wait_for_copies(int groups) {
    Thread &t = *emulated_thread;
    int done = t.committed - groups;
    if (done <= 0) return;
    int copies = t.groups[done - 1];
    for (int i = 0; i < copies; i++) {
        const Copy &c = t.copies[i];
        if (c.valid) memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
        else memset(c.to, 0, static_cast<size_t>(c.bytes));
    }
    t.copied -= copies;
    memmove(t.copies, t.copies + copies, static_cast<size_t>(t.copied) * sizeof(Copy));
    t.committed -= done;
    for (int i = 0; i < t.committed; i++) t.groups[i] = t.groups[i + done] - copies;
}

// Errors of the hardware --------------------------------------------------------------------------

static void on_signal(int number, siginfo_t *info, void *context) {
    char what[100];
    snprintf(what, sizeof(what), "%s at address %p",
             number == SIGFPE ? "a division by zero" : "an access outside of any array",
             info->si_addr);
    describe(message, sizeof(message), what);
#ifdef __x86_64__
    fault_at = reinterpret_cast<void *>(
        static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]);
#else
    (void)context;
#endif
    longjmp(failed, 1);  // sigprocmask is put back by emulated_launch
}

// g++ -fsanitize calls these where an expression is not defined: the first argument starts with the
// place in the source.
struct Place {
    const char *file;
    uint32_t line, column;
};
#define UNDEFINED(name, what)                                            \
    extern "C" void __ubsan_handle_##name(const Place *place) {          \
        emulated_error("%s at %s:%u", what, place->file, place->line);   \
    }
UNDEFINED(out_of_bounds, "an index outside of its array")
UNDEFINED(type_mismatch_v1, "an address that is not aligned to its type, or null")
UNDEFINED(shift_out_of_bounds, "a shift by more bits than there are")
UNDEFINED(add_overflow, "a sum of whole numbers beyond its type")
UNDEFINED(sub_overflow, "a difference of whole numbers beyond its type")
UNDEFINED(mul_overflow, "a product of whole numbers beyond its type")
UNDEFINED(negate_overflow, "a negated whole number beyond its type")
UNDEFINED(divrem_overflow, "a division by zero, or beyond its type")
UNDEFINED(pointer_overflow, "a pointer beyond the address space")

// What Python calls -------------------------------------------------------------------------------

// Memory with a stretch on either side that must not be touched. free: the same address and size.
constexpr size_t GUARD = 1 << 20;
static size_t pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

extern "C" void *emulated_allocate(size_t bytes) {
    size_t inside = pages(bytes);
    auto *p = static_cast<unsigned char *>(mmap(nullptr, inside + 2 * GUARD, PROT_NONE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (p == MAP_FAILED || mprotect(p + GUARD, inside, PROT_READ | PROT_WRITE)) return nullptr;
    return p + GUARD;
}

extern "C" void emulated_free(void *p, size_t bytes) {
    munmap(static_cast<unsigned char *>(p) - GUARD, pages(bytes) + 2 * GUARD);
}

// Runs a kernel: null, or what went wrong; *where is then the instruction, if that is known.
extern "C" const char *emulated_launch(void (*call)(void **), void **arguments,
                                       const unsigned *grid, const unsigned *block,
                                       size_t dynamic_bytes, unsigned char *statics,
                                       size_t static_bytes, bool backward, void **where) {
    constexpr size_t SHARED = 228 << 10;
    static unsigned char *shared, *signal_stack;
    if (!fibres) {
        fibres = static_cast<Fibre *>(calloc(1024, sizeof(Fibre)));
        stacks = static_cast<unsigned char *>(emulated_allocate(1024 * (STACK + PAGE)));
        for (int i = 0; i < 1024; i++) mprotect(stacks + i * (STACK + PAGE), PAGE, PROT_NONE);
        shared = static_cast<unsigned char *>(emulated_allocate(SHARED));
        signal_stack = static_cast<unsigned char *>(malloc(64 << 10));
    }
    shared_end = shared + SHARED;
    emulated_dynamic_shared = shared_end - (dynamic_bytes + 127) / 128 * 128;
    emulated_grid_size = {grid[0], grid[1], grid[2]};
    emulated_block_size = {block[0], block[1], block[2]};
    launch = {call, arguments, statics, static_bytes, dynamic_bytes,
              static_cast<int>(block[0] * block[1] * block[2])};
    fault_at = nullptr;
    emulated_thread = fibres;

    stack_t own = {signal_stack, 0, 64 << 10}, before;
    sigaltstack(&own, &before);
    struct sigaction action = {}, actions[3];
    const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &actions[i]);
    bool ok = !setjmp(failed);
    if (ok) {
        auto &b = emulated_block_index;
        for (b.z = 0; b.z < grid[2]; b.z++)
            for (b.y = 0; b.y < grid[1]; b.y++)
                for (b.x = 0; b.x < grid[0]; b.x++) run_block(backward ^ (b.x & 1));
    }
    for (int i = 0; i < 3; i++) sigaction(signals[i], &actions[i], nullptr);
    sigaltstack(&before, nullptr);
    *where = fault_at;
    return ok ? nullptr : message;
}

}  // namespace emulated
