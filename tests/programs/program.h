/* What all programs share. They use no C library: the same source is built for wasm32 and for the
   machine that records what the results must be (see build.py). */

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* A program that leaves more than one number behind defines this output: tests read it from its
   memory, byte for byte. */
#define OUTPUT(buffer, size)                            \
    EXPORT void *output(void) { return (void *)(buffer); } \
    EXPORT uint32_t output_size(void) { return (size); }
