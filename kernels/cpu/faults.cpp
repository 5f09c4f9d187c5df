// faults.cpp: a bad kernel must not take Python down. While a launch runs, faults, Ctrl-C and alarms become reports; and floating point
// flushes subnormal numbers, as CuPy's options have it on a GPU.
#include "faults.h"
#include "state.h"
#include <ucontext.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

sigjmp_buf after_fault;
static pid_t launching;  // the operating system's thread that runs the kernel

static bool from_outside(int signal_number) { return signal_number == SIGINT || signal_number == SIGALRM; }  // Ctrl-C, a time limit

static void on_fault(int signal_number, siginfo_t* info, void* machine) {
    if (gettid() != launching) {  // another thread's fault is none of ours
        signal(signal_number, SIG_DFL);
        return;
    }
    const void* pc = nullptr;
#if defined(__x86_64__)
    pc = (void*)((ucontext_t*)machine)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    pc = (void*)((ucontext_t*)machine)->uc_mcontext.pc;
#endif
    const unsigned char* address = (const unsigned char*)info->si_addr;
    const bool in_kernel = (const unsigned char*)pc >= image->base && (const unsigned char*)pc < image->shared_begin;
    int kind = from_outside(signal_number) ? MINIDL_INTERRUPTED : signal_number == SIGFPE ? MINIDL_ARITHMETIC : MINIDL_FAULT;
    if (kind == MINIDL_FAULT && below_own_stack(address)) kind = MINIDL_STACK;
    MinidlReport* r = report(kind, in_kernel ? (const char*)pc + 1 : nullptr);
    if (kind == MINIDL_FAULT) {
        locate(r, address);
#if defined(__x86_64__)
        r->write = (((ucontext_t*)machine)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#endif
    }
    siglongjmp(after_fault, 1);
}

static const int SIGNALS[5] = {SIGSEGV, SIGBUS, SIGFPE, SIGINT, SIGALRM};

void install_handlers(Handlers* saved) {
    launching = gettid();
    static char stack[64 << 10];
    stack_t own = {};
    own.ss_sp = stack, own.ss_size = sizeof stack;
    sigaltstack(&own, &saved->stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int s = 0; s < 5; s++) {
        if (from_outside(SIGNALS[s]) && getpid() != gettid()) continue;  // these belong to the main thread
        sigaction(SIGNALS[s], &action, &saved->before[s]);
    }
}

void uninstall_handlers(const Handlers* saved) {
    for (int s = 0; s < 5; s++)
        if (!from_outside(SIGNALS[s]) || getpid() == gettid()) sigaction(SIGNALS[s], &saved->before[s], nullptr);
    sigaltstack(&saved->stack_before, nullptr);
}

uint64_t flush_subnormals() {  // CuPy compiles with -ftz=true
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
#elif defined(__aarch64__)
    uint64_t before;
    asm volatile("mrs %0, fpcr" : "=r"(before));
    asm volatile("msr fpcr, %0" ::"r"(before | 1u << 24));
#else
    uint64_t before = 0;
#endif
    return before;
}

void restore_float_mode(uint64_t before) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)before);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" ::"r"(before));
#else
    (void)before;
#endif
}
