/* Recursion over text: a parser of JSON (RFC 8259) that sums up what it finds. */

#include "program.h"

#define LARGEST 65536

static char text[LARGEST + 1];
static const char *at;

/* null, false, true, numbers, strings, arrays, objects; the deepest nesting */
static uint32_t counts[8];
static double sum;
static uint64_t hash; /* of all strings' bytes */

OUTPUT(counts, sizeof counts)

/* Where a text goes. */
EXPORT void *input(void) {
    return text;
}

EXPORT double sum_of_numbers(void) {
    return sum;
}

EXPORT uint64_t hash_of_strings(void) {
    return hash;
}

static void space(void) {
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
}

static int word(const char *letters, uint32_t kind) {
    while (*letters)
        if (*at++ != *letters++)
            return 0;
    counts[kind]++;
    return 1;
}

static int number(void) {
    double value = 0, scale = 1;
    int negative = *at == '-', exponent = 0;
    at += negative;
    if (*at < '0' || *at > '9' || (*at == '0' && at[1] >= '0' && at[1] <= '9'))
        return 0;
    while (*at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    if (*at == '.') {
        if (*++at < '0' || *at > '9')
            return 0;
        while (*at >= '0' && *at <= '9')
            value += (*at++ - '0') * (scale /= 10);
    }
    if (*at == 'e' || *at == 'E') {
        int below = *++at == '-';
        at += below || *at == '+';
        if (*at < '0' || *at > '9')
            return 0;
        while (*at >= '0' && *at <= '9' && exponent < 1000)
            exponent = exponent * 10 + (*at++ - '0');
        while (exponent--)
            value = below ? value / 10 : value * 10;
    }
    counts[3]++;
    sum += negative ? -value : value;
    return 1;
}

static void byte(uint32_t value) {
    hash = (hash ^ (value & 255)) * 0x100000001b3; /* FNV-1a */
}

static int string(void) {
    for (at++; *at != '"'; at++) {
        if ((unsigned char)*at < ' ')
            return 0;
        if (*at != '\\') {
            byte((unsigned char)*at);
            continue;
        }
        switch (*++at) {
        case '"': case '\\': case '/': byte((unsigned char)*at); break;
        case 'b': byte('\b'); break;
        case 'f': byte('\f'); break;
        case 'n': byte('\n'); break;
        case 'r': byte('\r'); break;
        case 't': byte('\t'); break;
        case 'u': {
            uint32_t unit = 0;
            for (int i = 0; i < 4; i++) {
                uint32_t digit = (unsigned char)*++at;
                uint32_t letter = digit | 32;
                if (digit >= '0' && digit <= '9')
                    digit -= '0';
                else if (letter >= 'a' && letter <= 'f')
                    digit = letter - 'a' + 10;
                else
                    return 0;
                unit = unit << 4 | digit;
            }
            byte(unit >> 8);
            byte(unit);
            break;
        }
        default: return 0;
        }
    }
    at++;
    counts[4]++;
    return 1;
}

static int value(uint32_t depth) {
    if (depth > 500)
        return 0;
    if (depth > counts[7])
        counts[7] = depth;
    space();
    int good;
    switch (*at) {
    case 'n': good = word("null", 0); break;
    case 'f': good = word("false", 1); break;
    case 't': good = word("true", 2); break;
    case '"': good = string(); break;
    case '[':
    case '{': {
        int object = *at++ == '{';
        char end = object ? '}' : ']';
        counts[5 + object]++;
        space();
        if (*at == end) {
            at++;
            good = 1;
            break;
        }
        for (;;) {
            if (object) {
                space();
                if (*at != '"' || !string())
                    return 0;
                space();
                if (*at++ != ':')
                    return 0;
            }
            if (!value(depth + 1))
                return 0;
            if (*at != ',')
                break;
            at++;
        }
        good = *at++ == end;
        break;
    }
    default: good = number();
    }
    space();
    return good;
}

/* Parse a text of `size` bytes; return how many were fine: all of them if it is JSON. */
EXPORT uint32_t parse(uint32_t size) {
    for (int i = 0; i < 8; i++)
        counts[i] = 0;
    sum = 0;
    hash = 0xcbf29ce484222325;
    text[size] = 0;
    at = text;
    int good = value(1);
    uint32_t fine = (uint32_t)(at - text);
    return good ? fine : fine ? fine - 1 : 0;
}
