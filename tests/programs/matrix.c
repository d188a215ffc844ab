/* Doubles in nested loops: the product of two square matrices. */

#include "program.h"

#define LARGEST 256

static double a[LARGEST * LARGEST], b[LARGEST * LARGEST], c[LARGEST * LARGEST];
static uint32_t size;

OUTPUT(c, size * size * sizeof(double))

/* The sum of the diagonal of the product of two n x n matrices; n is at most LARGEST. */
EXPORT double matrix(uint32_t n) {
    size = n;
    for (uint32_t i = 0; i < n * n; i++) {
        a[i] = (double)(i % 17) - 8.25;
        b[i] = 1.0 / (double)(i % 23 + 1);
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < n; k++)
                sum += a[i * n + k] * b[k * n + j];
            c[i * n + j] = sum;
        }
    double trace = 0;
    for (uint32_t i = 0; i < n; i++)
        trace += c[i * n + i];
    return trace;
}
