/* 64-bit integers: divisions, remainders and shifts, which a JIT may leave to its libcalls. */

#include "program.h"

static uint64_t factors[64];
static uint32_t count;

OUTPUT(factors, count * sizeof factors[0])

static uint64_t multiply(uint64_t a, uint64_t b, uint64_t modulus) {
    uint64_t product = 0;
    a %= modulus;
    for (; b; b >>= 1) {
        if (b & 1)
            product = product >= modulus - a ? product - (modulus - a) : product + a;
        a = a >= modulus - a ? a - (modulus - a) : a + a;
    }
    return product;
}

static uint64_t power(uint64_t base, uint64_t exponent, uint64_t modulus) {
    uint64_t result = 1 % modulus;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1)
            result = multiply(result, base, modulus);
        base = multiply(base, base, modulus);
    }
    return result;
}

/* The test of Miller and Rabin, with the bases that decide for all 64-bit numbers. */
EXPORT uint32_t is_prime(uint64_t n) {
    static const uint8_t bases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
    if (n < 2)
        return 0;
    for (uint32_t i = 0; i < sizeof bases; i++)
        if (n % bases[i] == 0)
            return n == bases[i];
    int twos = __builtin_ctzll(n - 1);
    for (uint32_t i = 0; i < sizeof bases; i++) {
        uint64_t x = power(bases[i], (n - 1) >> twos, n);
        if (x == 1 || x == n - 1)
            continue;
        int round = 1;
        while (round < twos && (x = multiply(x, x, n)) != n - 1)
            round++;
        if (round == twos)
            return 0;
    }
    return 1;
}

/* The prime factors of a number, by trial division; return how many. */
EXPORT uint32_t factor(uint64_t n) {
    count = 0;
    for (uint64_t divisor = 2; divisor <= n / divisor; divisor += 1 + (divisor > 2))
        while (n % divisor == 0) {
            factors[count++] = divisor;
            n /= divisor;
        }
    if (n > 1)
        factors[count++] = n;
    return count;
}

/* Signed division by powers of two of either sign, counts of bits, and rotations, all in one. */
EXPORT int64_t mixture(int64_t seed, uint32_t rounds) {
    uint64_t x = (uint64_t)seed;
    int64_t sum = 0;
    for (uint32_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int64_t divisor = (int64_t)(x >> (i & 63)) | 1;
        int64_t dividend = (int64_t)(x * 0x9e3779b97f4a7c15);
        if (divisor != -1)
            sum += dividend / divisor ^ dividend % divisor;
        sum ^= dividend >> (x & 63);
        sum += __builtin_popcountll(x) * 65537 + __builtin_clzll(x | 1) * 257;
        sum = (int64_t)((uint64_t)sum << 9 | (uint64_t)sum >> 55);
        sum += (int8_t)x + (int16_t)(x >> 8) + (int32_t)(x >> 16);
    }
    return sum;
}
