/* A switch in a loop: an interpreter of Urban Müller's language of eight instructions. */

#include "program.h"

#define LARGEST 4096
#define CELLS 1024

static char source[LARGEST];
static uint8_t cells[CELLS];
static uint8_t printed[LARGEST];
static uint32_t length;

OUTPUT(printed, length)

/* Where a program goes. */
EXPORT void *input(void) {
    return source;
}

static uint32_t matching(uint32_t at, int step) {
    int depth = 0;
    do {
        depth += (source[at] == '[') - (source[at] == ']');
        at += step;
    } while (depth);
    return at - step;
}

/* Run a program of `size` characters; return how many instructions that took. */
EXPORT uint64_t interpret(uint32_t size) {
    static uint16_t jumps[LARGEST];
    uint64_t steps = 0;
    uint32_t cell = 0;
    length = 0;
    for (uint32_t i = 0; i < CELLS; i++)
        cells[i] = 0;
    for (uint32_t at = 0; at < size; at++)
        if (source[at] == '[') {
            jumps[at] = (uint16_t)matching(at, 1);
            jumps[jumps[at]] = (uint16_t)at;
        }
    for (uint32_t at = 0; at < size; at++, steps++)
        switch (source[at]) {
        case '>': cell = (cell + 1) % CELLS; break;
        case '<': cell = (cell - 1) % CELLS; break;
        case '+': cells[cell]++; break;
        case ',': cells[cell] = 0; break; /* the end of the input */
        case '-': cells[cell]--; break;
        case '.': printed[length++ % LARGEST] = cells[cell]; break;
        case '[': if (!cells[cell]) at = jumps[at]; break;
        case ']': if (cells[cell]) at = jumps[at]; break;
        default: steps--;
        }
    return steps;
}
