/* Vectors of four integers: chunks of BLAKE3, four at a time.

   Source: J. O'Connor, J.-P. Aumasson, S. Neves, Z. Wilcox-O'Hearn, "BLAKE3", section 2. */

#include "program.h"

typedef uint32_t words __attribute__((vector_size(16)));

#define CHUNKS 4

static uint32_t values[CHUNKS][8];

OUTPUT(values, sizeof values)

static const uint32_t initial[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint8_t schedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

enum { CHUNK_START = 1, CHUNK_END = 2, BLOCKS = 16 };

static words all(uint32_t x) {
    return (words){x, x, x, x};
}

static words rotate(words x, int count) {
    return x >> count | x << (32 - count);
}

static inline void mix(words v[16], int a, int b, int c, int d, words x, words y) {
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 7);
}

static void compress(words h[8], const words m[16], words counter, uint32_t flags) {
    words v[16];
    for (int i = 0; i < 8; i++)
        v[i] = h[i];
    for (int i = 0; i < 4; i++)
        v[8 + i] = all(initial[i]);
    v[12] = counter;
    v[13] = all(0);
    v[14] = all(64);
    v[15] = all(flags);
#pragma clang loop unroll(full)
    for (int round = 0; round < 7; round++) {
        const uint8_t *s = schedule[round];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++)
        h[i] = v[i] ^ v[8 + i];
}

/* Compress so many times four chunks, each word of which is made of its place and the chunk; leave
   the last four chaining values, and return a word of the last one. */
EXPORT uint32_t vector_blake3(uint32_t times) {
    words h[8] = {{0}}, m[16];
    for (uint32_t n = 0; n < times; n++) {
        words counter = all(n * CHUNKS) + (words){0, 1, 2, 3};
        for (int i = 0; i < 8; i++)
            h[i] = all(initial[i]);
        for (uint32_t block = 0; block < BLOCKS; block++) {
            for (uint32_t i = 0; i < 16; i++)
                m[i] = (counter * all(256) + all(block * 16 + i)) * all(0x9e3779b9);
            uint32_t flags = (block == 0 ? CHUNK_START : 0) | (block == BLOCKS - 1 ? CHUNK_END : 0);
            compress(h, m, counter, flags);
        }
    }
    for (int i = 0; i < 8; i++)
        for (int chunk = 0; chunk < CHUNKS; chunk++)
            values[chunk][i] = h[i][chunk];
    return values[CHUNKS - 1][0];
}
