// faults.h: what scheduler.cpp needs of faults.cpp.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

struct Handlers {
    struct sigaction before[5];
    stack_t stack_before;
};
extern sigjmp_buf after_fault;  // where a launch goes on when its kernel has faulted
void install_handlers(Handlers* saved);
void uninstall_handlers(const Handlers* saved);
uint64_t flush_subnormals();    // returns what restore_float_mode() wants
void restore_float_mode(uint64_t before);
