/* Rounding and conversions: waves of floats as samples of 16 bits. */

#include "program.h"

#define LARGEST 48000

static int16_t samples[LARGEST];
static uint32_t count;

OUTPUT(samples, count * sizeof samples[0])

/* sin(2 pi turns), by a polynomial on a quarter of the circle. */
static double sine(double turns) {
    double x = turns - __builtin_floor(turns + 0.5); /* from -1/2 to 1/2 */
    if (x > 0.25)
        x = 0.5 - x;
    if (x < -0.25)
        x = -0.5 - x;
    double angle = x * 6.283185307179586, square = angle * angle;
    return angle * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72))));
}

static float triangle(float turns) {
    float x = turns - __builtin_truncf(turns);
    return __builtin_fabsf(4 * x - 2) - 1;
}

static float stairs(float turns) {
    return __builtin_copysignf(__builtin_ceilf(turns * 4) - __builtin_floorf(turns * 2), turns - 3);
}

/* Render `n` samples of a chord; return a checksum. */
EXPORT uint32_t render(uint32_t n, double frequency) {
    uint32_t sum = 0;
    count = n;
    for (uint32_t i = 0; i < n; i++) {
        double time = i / 48000.0;
        double wave = sine(time * frequency) + 0.5 * sine(time * frequency * 1.5)
            + triangle((float)(time * frequency / 2)) / 4 + stairs((float)(time * 3)) / 64;
        double level = __builtin_rint(wave * 20000);
        level = level > 32767 ? 32767 : level < -32768 ? -32768 : level;
        samples[i] = (int16_t)level;
        sum = sum * 31 + (uint16_t)samples[i];
    }
    return sum;
}

/* Round half to even, to a multiple of `step`. */
EXPORT float round_to(float value, float step) {
    return __builtin_rintf(value / step) * step;
}
