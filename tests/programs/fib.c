/* Calls: Fibonacci numbers by their definition. */

#include "program.h"

/* Without the attribute the compiler makes a loop of one of the two calls. */
__attribute__((disable_tail_calls)) EXPORT uint32_t fib(uint32_t n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
