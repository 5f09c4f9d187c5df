// fiber.h: a stack and a place in the code, and the jump from one to another. A CUDA thread waiting at a barrier is one of these.
#pragma once
#include <stddef.h>

#if defined(__x86_64__) && !defined(MINIDL_UCONTEXT)
// By hand: a few nanoseconds, where ucontext makes two system calls. Only what the calling convention wants kept is kept.
struct Fiber { void* top; };

extern "C" void minidl_jump(void** save, void* load);
asm(R"(
    .text
    .hidden minidl_jump
    .globl minidl_jump
    .type minidl_jump, @function
minidl_jump:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
    .size minidl_jump, .-minidl_jump
)");

static inline void fiber_jump(Fiber* from, Fiber* to) { minidl_jump(&from->top, to->top); }

static inline void fiber_start(Fiber* fiber, char* stack, size_t bytes, void (*entry)()) {
    void** top = (void**)(stack + bytes);
    *--top = nullptr;  // where the entry's return address would lie: the entry never returns, and a debugger stops here
    *--top = (void*)entry;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber->top = top;
}
#else
#include <ucontext.h>
struct Fiber { ucontext_t context; };

static inline void fiber_jump(Fiber* from, Fiber* to) { swapcontext(&from->context, &to->context); }

static inline void fiber_start(Fiber* fiber, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}
#endif
