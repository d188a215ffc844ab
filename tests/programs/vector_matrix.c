/* Vectors of four floats: the product of two square matrices, by tiles of 4 x 8. */

#include "program.h"

#define LARGEST 256

typedef float floats __attribute__((vector_size(16), aligned(4)));

static float a[LARGEST * LARGEST], b[LARGEST * LARGEST], c[LARGEST * LARGEST];
static uint32_t size;

OUTPUT(c, size * size * sizeof(float))

static void tile(uint32_t n, uint32_t i, uint32_t j) {
    floats sums[4][2] = {{{0}}};
    for (uint32_t k = 0; k < n; k++) {
        floats left = *(const floats *)&b[k * n + j], right = *(const floats *)&b[k * n + j + 4];
        for (uint32_t row = 0; row < 4; row++) {
            float x = a[(i + row) * n + k];
            floats all = {x, x, x, x};
            sums[row][0] += all * left;
            sums[row][1] += all * right;
        }
    }
    for (uint32_t row = 0; row < 4; row++) {
        *(floats *)&c[(i + row) * n + j] = sums[row][0];
        *(floats *)&c[(i + row) * n + j + 4] = sums[row][1];
    }
}

/* The sum of the diagonal of the product of two n x n matrices; n is a multiple of 8, and at most
   LARGEST. */
EXPORT float vector_matrix(uint32_t n) {
    size = n;
    for (uint32_t i = 0; i < n * n; i++) {
        a[i] = (float)(i * 5 & 31) - 8.25f;
        b[i] = 1.0f / (float)((i * 7 & 15) + 1);
    }
    for (uint32_t i = 0; i < n; i += 4)
        for (uint32_t j = 0; j < n; j += 8)
            tile(n, i, j);
    float trace = 0;
    for (uint32_t i = 0; i < n; i++)
        trace += c[i * n + i];
    return trace;
}
