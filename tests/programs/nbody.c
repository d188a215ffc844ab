/* Doubles in structures: the Sun and the four giant planets, by a symplectic integrator. Units are
   astronomical units, days and solar masses times 4 pi^2; positions and velocities are rounded. */

#include "program.h"

#define BODIES 5
#define PI 3.141592653589793
#define SOLAR_MASS (4 * PI * PI)
#define DAYS_PER_YEAR 365.24

struct body {
    double x, y, z, vx, vy, vz, mass;
};

static struct body bodies[BODIES];
static const struct body start[BODIES] = {
    {0, 0, 0, 0, 0, 0, SOLAR_MASS},
    {4.8414, -1.1603, -0.1036, 0.00166, 0.0077, -0.000069, 0.000954 * SOLAR_MASS},
    {8.3434, 4.1248, -0.4035, -0.002767, 0.004998, 0.000023, 0.000285 * SOLAR_MASS},
    {12.8944, -15.1112, -0.2233, 0.002964, 0.002378, -0.0000296, 0.0000436 * SOLAR_MASS},
    {15.3797, -25.9193, 0.1793, 0.00268, 0.001628, -0.000095, 0.0000515 * SOLAR_MASS},
};

OUTPUT(bodies, sizeof bodies)

static void advance(double step) {
    for (int i = 0; i < BODIES; i++) {
        struct body *one = &bodies[i];
        for (int j = i + 1; j < BODIES; j++) {
            struct body *other = &bodies[j];
            double dx = one->x - other->x, dy = one->y - other->y, dz = one->z - other->z;
            double square = dx * dx + dy * dy + dz * dz;
            double magnitude = step / (square * __builtin_sqrt(square));
            one->vx -= dx * other->mass * magnitude;
            one->vy -= dy * other->mass * magnitude;
            one->vz -= dz * other->mass * magnitude;
            other->vx += dx * one->mass * magnitude;
            other->vy += dy * one->mass * magnitude;
            other->vz += dz * one->mass * magnitude;
        }
    }
    for (int i = 0; i < BODIES; i++) {
        bodies[i].x += step * bodies[i].vx;
        bodies[i].y += step * bodies[i].vy;
        bodies[i].z += step * bodies[i].vz;
    }
}

static double energy(void) {
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        struct body *one = &bodies[i];
        sum += 0.5 * one->mass * (one->vx * one->vx + one->vy * one->vy + one->vz * one->vz);
        for (int j = i + 1; j < BODIES; j++) {
            struct body *other = &bodies[j];
            double dx = one->x - other->x, dy = one->y - other->y, dz = one->z - other->z;
            sum -= one->mass * other->mass / __builtin_sqrt(dx * dx + dy * dy + dz * dz);
        }
    }
    return sum;
}

/* The energy after so many steps of 3.65 days. */
EXPORT double nbody(uint32_t steps) {
    double px = 0, py = 0, pz = 0;
    for (int i = 0; i < BODIES; i++) {
        bodies[i] = start[i];
        bodies[i].vx *= DAYS_PER_YEAR;
        bodies[i].vy *= DAYS_PER_YEAR;
        bodies[i].vz *= DAYS_PER_YEAR;
        px += bodies[i].vx * bodies[i].mass;
        py += bodies[i].vy * bodies[i].mass;
        pz += bodies[i].vz * bodies[i].mass;
    }
    bodies[0].vx = -px / SOLAR_MASS;
    bodies[0].vy = -py / SOLAR_MASS;
    bodies[0].vz = -pz / SOLAR_MASS;
    for (uint32_t i = 0; i < steps; i++)
        advance(0.01);
    return energy();
}
