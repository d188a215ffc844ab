/* memory.fill and memory.copy: blocks of many sizes, overlapping both ways. */

#include "program.h"

#define SIZE (1 << 20)

static uint8_t memory[SIZE];

OUTPUT(memory, sizeof memory)

static uint32_t next(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Fill and move blocks of up to `largest` bytes, `rounds` times each, in memory that is zero at first. */
EXPORT uint32_t bulk(uint32_t rounds, uint32_t largest) {
    uint32_t state = 1;
    __builtin_memset(memory, 0, SIZE);
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t length = next(&state) % (largest + 1);
        uint32_t to = next(&state) % (SIZE - length + 1);
        __builtin_memset(memory + to, (int)(round & 255), length);
        uint32_t again = next(&state) % (SIZE - length + 1);
        __builtin_memmove(memory + again, memory + to, length);
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < SIZE; i += 997)
        sum = sum * 31 + memory[i];
    return sum;
}
