/* Byte loads and stores: the sieve of Eratosthenes. */

#include "program.h"

#define LIMIT 1000000

static uint8_t composite[LIMIT + 1];

OUTPUT(composite, sizeof composite)

/* The number of primes up to `limit`, which is at most LIMIT. */
EXPORT uint32_t sieve(uint32_t limit) {
    uint32_t primes = 0;
    for (uint32_t i = 0; i <= limit; i++)
        composite[i] = i < 2;
    for (uint32_t i = 2; i <= limit; i++) {
        if (composite[i])
            continue;
        primes++;
        if (i <= limit / i)
            for (uint32_t j = i * i; j <= limit; j += i)
                composite[j] = 1;
    }
    return primes;
}
