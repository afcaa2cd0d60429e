/* The loops of a Program, compiled for each kind of processor as those of vectors.h, for one row of inputs or several side by side.
 *
 * A program is straight-line code over slots: segments of instructions of one op. An instruction is three slots, or the slot of
 * its result and these three. Slot i has the numbers [i * width, (i + 1) * width), one for each row.
 */
#ifndef MICROGPT_PROGRAM_H
#define MICROGPT_PROGRAM_H

#include "vectors.h"

/* Ops of instructions are those of nodes (_tape.pxd, at most 64), of which four are other functions here; added to these, a multiple
 * of 64 asks for a derivative. */
enum {
    CODE_MADD = 0,   /* a * b + c, two roundings */
    CODE_EXP = 1,
    CODE_LOG = 2,
    CODE_RELU = 3,
    CODE_TANH = 4,
    CODE_SQRT = 6,
    CODE_LARGER = 60,    /* b if it is larger, else a, as Python's max */
    CODE_RECIPROCAL = 61, /* a ** -1 where that and its derivative are ordinary numbers */
    CODE_SQUARE = 62,    /* a ** 2, as well */
    CODE_RECIPROCAL_PARTIAL = 63,
    CODE_PARTIAL_A = 64,
    CODE_PARTIAL_B = 128,
    CODE_SECOND_AA = 192,
    CODE_SECOND_AB = 256,
    CODE_SECOND_BB = 320
};

struct segment {
    uint32_t op;
    uint32_t n; /* instructions */
};

/* The value of an op without a loop of its own here. Where it has none, `failed` becomes 1. */
typedef double (*other_op)(uint32_t op, double x, double y, double z, int *failed);

/* Both bounds of _ops.pxd, within which pow and its derivative are ordinary numbers. */
EACH int is_ordinary(double x) { return 1e-75 < fabs(x) && fabs(x) < 1e75; }

/* One function of one number for each row; the results may replace the operands. */
#define FOR_EACH(expression)                                                                                                    \
    for (i = 0; i < n; i++, p += size, d += width) {                                                                            \
        double *const to = width == 1 ? d : s + (size_t)p[3] * width;                                                           \
        const double *const a = s + (size_t)p[0] * width, *const b = s + (size_t)p[1] * width;                                  \
        const double *const c = s + (size_t)p[2] * width;                                                                       \
        (void)b, (void)c;                                                                                                       \
        for (j = 0; j < width; j++) {                                                                                           \
            const double x = a[j];                                                                                              \
            expression                                                                                                          \
        }                                                                                                                       \
    }                                                                                                                           \
    break;

/* Run `segments` of them on the slots `s`. Results of one row go to `d` on; of more, where the instruction says. failed[j] becomes 1
 * if an op has no value in row j. */
EACH void run_segments(const struct segment *segment, size_t segments, const uint32_t *p, double *s, double *d, int *failed,
                       other_op other, const int width, int has_fma)
{
    const size_t size = width == 1 ? 3 : 4;
    size_t i, k, n;
    int j;
    for (k = 0; k < segments; k++) {
        n = segment[k].n;
        switch (segment[k].op) {
        case CODE_MADD:
            if (width == 1) {
                for (i = 0; i < n; i++, p += 3, d++)
                    *d = s[p[0]] * s[p[1]] + s[p[2]];
            } else {
                for (i = 0; i < n; i++, p += 4) {
                    double *const to = s + (size_t)p[3] * width;
                    const double *const a = s + (size_t)p[0] * width, *const b = s + (size_t)p[1] * width;
                    const double *const c = s + (size_t)p[2] * width;
                    for (j = 0; j < width; j += LANES)
                        AT(to + j) = AT(a + j) * AT(b + j) + AT(c + j);
                }
            }
            break;
        case CODE_EXP:
            FOR_EACH({
                const double y = exp(x);
                failed[j] |= (y == INFINITY) & (x != INFINITY);
                to[j] = y;
            })
        case CODE_LOG:
            FOR_EACH({
                failed[j] |= x <= 0.0;
                to[j] = log(x);
            })
        case CODE_RELU:
            FOR_EACH({ to[j] = relu_value(x); })
        case CODE_TANH:
            FOR_EACH({ to[j] = tanh(x); })
        case CODE_SQRT:
            FOR_EACH({
                failed[j] |= x <= 0.0;
                to[j] = sqrt(x);
            })
        case CODE_LARGER:
            FOR_EACH({ to[j] = b[j] > x ? b[j] : x; })
        case CODE_RECIPROCAL:
            FOR_EACH({ to[j] = is_ordinary(x) ? power(x, -1.0, has_fma) : other(CODE_RECIPROCAL, x, b[j], c[j], &failed[j]); })
        case CODE_SQUARE:
            FOR_EACH({ to[j] = is_ordinary(x) ? power(x, 2.0, has_fma) : other(CODE_SQUARE, x, b[j], c[j], &failed[j]); })
        case CODE_RECIPROCAL_PARTIAL:
            FOR_EACH({ to[j] = -power(x, -2.0, has_fma); })
        case CODE_PARTIAL_A + CODE_LOG:
            FOR_EACH({ to[j] = 1.0 / x; })
        case CODE_PARTIAL_A + CODE_RELU:
            FOR_EACH({ to[j] = relu_partial(x); })
        case CODE_PARTIAL_A + CODE_SQRT:
            FOR_EACH({ to[j] = 0.5 / c[j]; })
        default:
            FOR_EACH({ to[j] = other(segment[k].op, x, b[j], c[j], &failed[j]); })
        }
    }
}

struct runner {
    const char *name;
    void (*one)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, double *d, int *failed,
                other_op other);
    void (*four)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, double *d, int *failed,
                 other_op other);
    void (*eight)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, double *d, int *failed,
                  other_op other);
};

#define RUN_WIDTH(name, target, width, has_fma)                                                                                 \
    target static void name(const struct segment *segment, size_t segments, const uint32_t *p, double *s, double *d,            \
                            int *failed, other_op other)                                                                        \
    {                                                                                                                           \
        run_segments(segment, segments, p, s, d, failed, other, width, has_fma);                                                \
    }
#define RUNNER(name, target, has_fma)                                                                                           \
    RUN_WIDTH(name##_run_one, target, 1, has_fma)                                                                               \
    RUN_WIDTH(name##_run_four, target, 4, has_fma)                                                                              \
    RUN_WIDTH(name##_run_eight, target, 8, has_fma)                                                                             \
    static const struct runner name##_runner = {#name, name##_run_one, name##_run_four, name##_run_eight};

#if defined(__FP_FAST_FMA)
RUNNER(baseline, , 1)
#else
RUNNER(baseline, , 0)
#endif
#if defined(__GNUC__) && defined(__x86_64__)
RUNNER(avx2, __attribute__((target("avx2,fma"))), 1)
#endif

/* The runner of the variant of this name. */
static const struct runner *runner_named(const char *name)
{
#if defined(__GNUC__) && defined(__x86_64__)
    if (strcmp(name, "avx2") == 0)
        return &avx2_runner;
#endif
    (void)name;
    return &baseline_runner;
}

#endif
