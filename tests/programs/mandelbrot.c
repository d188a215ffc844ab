/* Floats of both widths: the Mandelbrot set, as an image of how soon a point escapes. */

#include "program.h"

#define LARGEST 256

static uint8_t image[LARGEST * LARGEST];
static uint32_t size;

OUTPUT(image, size * size)

/* Draw n x n points in doubles; return the sum of the image. */
EXPORT uint32_t mandelbrot(uint32_t n, uint32_t limit) {
    uint32_t sum = 0;
    size = n;
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t column = 0; column < n; column++) {
            double cx = 3.0 * column / n - 2.25, cy = 3.0 * row / n - 1.5, x = 0, y = 0;
            uint32_t i = 0;
            while (i < limit && x * x + y * y <= 4) {
                double next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
                i++;
            }
            sum += image[row * n + column] = (uint8_t)i;
        }
    return sum;
}

/* The same in single precision. */
EXPORT uint32_t mandelbrot_f32(uint32_t n, uint32_t limit) {
    uint32_t sum = 0;
    size = n;
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t column = 0; column < n; column++) {
            float cx = 3.0f * column / n - 2.25f, cy = 3.0f * row / n - 1.5f, x = 0, y = 0;
            uint32_t i = 0;
            while (i < limit && x * x + y * y <= 4) {
                float next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
                i++;
            }
            sum += image[row * n + column] = (uint8_t)i;
        }
    return sum;
}
