/* The loops of a Program, compiled for each kind of processor as those of vectors.h, for one row of inputs or several side by side.
 *
 * A program is straight-line code over slots, which have a number for each row: segments of instructions of one op. An instruction
 * is the places of three operands and of its result.
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
    CODE_MINIMUM_CONSTANT = 30,
    CODE_MAXIMUM_CONSTANT = 31,
    CODE_MINIMUM = 38,
    CODE_MAXIMUM = 39,
    CODE_LARGER = 60,    /* b if it is larger, else a, as Python's max */
    CODE_RECIPROCAL = 61, /* a ** -1 where that and its derivative are ordinary numbers */
    CODE_SQUARE = 62,    /* a ** 2, as well */
    CODE_RECIPROCAL_PARTIAL = 63,
    CODE_PARTIAL_A = 64,
    CODE_PARTIAL_B = 128,
    CODE_SECOND_AA = 192,
    CODE_SECOND_AB = 256,
    CODE_SECOND_BB = 320,
    CODE_SOFTMAX = 384, /* of n logits: n, their places, those of n exponentials, the sum, its inverse, n products */
    CODE_PROJECT = 385, /* added to a number: that result of a softmax, which needs no instruction */
    MOST_LOGITS = 16
};

struct segment {
    uint32_t op;
    uint32_t n; /* instructions */
};

/* The value of an op without a loop of its own here. Where it has none, `failed` becomes 1. */
typedef double (*other_op)(uint32_t op, double x, double y, double z, int *failed);

/* Runs `count` segments of instructions from `p` on, on the slots `s`; returns where these end. failed[j] becomes 1 if an op has no
 * value in row j. */
typedef const uint32_t *(*run_code)(const struct segment *segments, size_t count, const uint32_t *p, double *s, int *failed,
                                    other_op other);

struct runner {
    run_code one, four, eight; /* rows at once */
};

/* The bounds of _ops.pxd within which x ** -1 and x ** 2, and their derivatives, are ordinary numbers. */
EACH int is_ordinary(double x) { return 1e-75 < fabs(x) && fabs(x) < 1e75; }

/* The partial of a minimum or maximum by x: a half at a tie, of two nan, too; a nan alone loses. */
EACH double taken_partial(double x, double y, int better)
{
    const int tie = (x == y) | ((x != x) & (y != y));
    return tie ? 0.5 : better | (y != y) ? 1.0 : 0.0;
}

EACH double exp_or_fail(double x, int *failed)
{
    const double y = exp(x);
    *failed |= (y == INFINITY) & (x != INFINITY);
    return y;
}

/* Lanes of a result of which a quick way was not sure. */
#define DOUBTS 32
struct doubt {
    double x[LANES];
    double *to;
    int *failed;
    int sure;
};

static void resolve(const struct doubt *doubt, size_t n, uint32_t op, other_op other)
{
    size_t i;
    int j;
    for (i = 0; i < n; i++, doubt++)
        for (j = 0; j < LANES; j++) {
            const double x = doubt->x[j];
            if (doubt->sure >> j & 1)
                continue;
            if (op == CODE_EXP)
                doubt->to[j] = exp_or_fail(x, &doubt->failed[j]);
            else if (op == CODE_RECIPROCAL_PARTIAL)
                doubt->to[j] = -pow(x, -2.0);
            else if (is_ordinary(x))
                doubt->to[j] = pow(x, op == CODE_SQUARE ? 2.0 : -1.0);
            else
                doubt->to[j] = other(op, x, x, x, &doubt->failed[j]);
        }
}

/* In ulp. glibc's exp errs by at most 0.511 (sysdeps/ieee754/dbl-64/e_exp.c), so where the exact result is farther than 0.0135 from
 * a tie, it gives the double next to it. */
#define EXP_TIE 0.4865

#define RUN(name) baseline_##name
#define VECTOR_FMA 0
#define SET_LANES set_lanes
#include "program_loops.h"
#undef RUN
#undef VECTOR_FMA
#undef SET_LANES

#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define RUN(name) avx2_##name
#define VECTOR_FMA GLIBC_POW
#define SET_LANES avx2_set_lanes
#include "program_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
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
