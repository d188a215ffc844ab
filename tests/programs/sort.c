/* Calls through a table: quicksort with a comparison that it is given. */

#include "program.h"

#define LARGEST 100000

typedef int (*comparison)(uint32_t, uint32_t);

static uint32_t keys[LARGEST], order[LARGEST];
static char words[LARGEST][8];
static uint32_t count;

OUTPUT(order, count * sizeof order[0])

static int smaller_signed(uint32_t a, uint32_t b) {
    return (int32_t)keys[a] < (int32_t)keys[b];
}

static int larger_unsigned(uint32_t a, uint32_t b) {
    return keys[a] > keys[b];
}

static int earlier_word(uint32_t a, uint32_t b) {
    const char *one = words[a], *other = words[b];
    for (; *one && *one == *other; one++)
        other++;
    return (unsigned char)*one < (unsigned char)*other;
}

static comparison before;

static void quicksort(uint32_t *from, uint32_t *to) {
    while (to - from > 1) {
        uint32_t pivot = from[(to - from) / 2], *low = from, *high = to - 1;
        while (low <= high) {
            while (before(*low, pivot))
                low++;
            while (before(pivot, *high))
                high--;
            if (low <= high) {
                uint32_t other = *low;
                *low++ = *high;
                *high-- = other;
            }
        }
        /* The smaller part by a call: the stack stays small. */
        if (high - from < to - low) {
            quicksort(from, high + 1);
            from = low;
        } else {
            quicksort(low, to);
            to = high + 1;
        }
    }
}

/* Sort `n` pseudo-random things by order 0, 1 or 2; return a checksum of the permutation. */
EXPORT uint32_t sort(uint32_t n, uint32_t by) {
    static const comparison orders[] = {smaller_signed, larger_unsigned, earlier_word};
    uint32_t state = 12345;
    count = n;
    for (uint32_t i = 0; i < n; i++) {
        state = state * 1103515245 + 12345;
        keys[i] = state ^ state >> 15;
        order[i] = i;
        for (uint32_t j = 0; j < 7; j++)
            words[i][j] = j <= keys[i] % 7 ? (char)('a' + (keys[i] >> 4 * j) % 5) : 0;
    }
    before = orders[by];
    quicksort(order, order + n);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i && before(order[i], order[i - 1]))
            __builtin_trap();
        sum = sum * 31 + order[i];
    }
    return sum;
}
