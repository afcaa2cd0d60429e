/* Small loops that Cython cannot express: restrict pointers and the bits of a double and of a node. */
#ifndef MICROGPT_KERNELS_H
#define MICROGPT_KERNELS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT __restrict__
#endif

/* Whether the guard named is taken out, to see whether the fuzzer notices (tests/fuzz.py --faults): never, but in a build for that,
 * where the environment names one. */
#ifdef MICROGPT_FAULTS
#include <stdlib.h>
static inline int FAULT(const char *guard)
{
    static const char *chosen = NULL;
    if (chosen == NULL && (chosen = getenv("MICROGPT_FAULT")) == NULL)
        chosen = "";
    return strcmp(guard, chosen) == 0;
}
#else
#define FAULT(guard) ((void)(guard), 0)
#endif

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define FMA __builtin_fma
#else
#define ALWAYS_INLINE static inline
#define FMA fma
#endif

/* Whether pow is glibc's, and doubles are computed as doubles. */
#if defined(__GLIBC__) && !defined(__UCLIBC__) && FLT_EVAL_METHOD == 0
#define GLIBC_POW 1
#else
#define GLIBC_POW 0
#endif

/* y[r] = w[r] . x for `rows` rows of length n, a step apart: left to right, so eight sums at once
 * hide the latency of an addition, and wider vectors do not help. */
static inline void dot_rows(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n, size_t step)
{
    size_t r = 0, i;
    for (; r + 8 <= rows; r += 8) {
        const double *w0 = w + r * step;
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
        for (i = 0; i < n; i++) {
            const double xi = x[i];
            s0 += w0[i] * xi;
            s1 += w0[i + step] * xi;
            s2 += w0[i + 2 * step] * xi;
            s3 += w0[i + 3 * step] * xi;
            s4 += w0[i + 4 * step] * xi;
            s5 += w0[i + 5 * step] * xi;
            s6 += w0[i + 6 * step] * xi;
            s7 += w0[i + 7 * step] * xi;
        }
        y[r] = s0, y[r + 1] = s1, y[r + 2] = s2, y[r + 3] = s3;
        y[r + 4] = s4, y[r + 5] = s5, y[r + 6] = s6, y[r + 7] = s7;
    }
    for (; r < rows; r++) {
        double s = 0;
        for (i = 0; i < n; i++)
            s += w[r * step + i] * x[i];
        y[r] = s;
    }
}

/* The partials of a dot of two spans that do not overlap: gw += g * x, gx += g * w. */
static inline void dot_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, double g, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) {
        gw[i] += x[i] * g;
        gx[i] += w[i] * g;
    }
}

/* Whether all of the n >= 1 bytes at p are `mark`: the C library's loop is the fastest. */
static inline int are_marks(const uint8_t *p, uint8_t mark, size_t n) { return p[0] == mark && memcmp(p, p + 1, n - 1) == 0; }

/* How many of the n bytes at p are `mark` before the first that is not: of many most often all. */
static inline size_t count_marks(const uint8_t *p, uint8_t mark, size_t n)
{
    const uint64_t all = UINT64_C(0x0101010101010101) * mark;
    size_t i = 0;
    uint64_t eight;
    uint32_t four;
    if (n >= 64 && are_marks(p, mark, n))
        return n;
    for (; i + 8 <= n; i += 8) {
        memcpy(&eight, p + i, 8);
        if (eight != all)
            break;
    }
    if (i + 4 <= n) {
        memcpy(&four, p + i, 4);
        if (four == (uint32_t)all)
            i += 4;
    }
    while (i < n && p[i] == mark)
        i++;
    return i;
}

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) ((void)(p))
#endif

/* The number of the highest bit of a word that is not 0. */
static inline int highest_bit(uint64_t word)
{
#if defined(__GNUC__)
    return 63 - __builtin_clzll(word);
#else
    int n = 0;
    while (word >>= 1)
        n++;
    return n;
#endif
}

/* What differs between two records (_tape.pxd: op and a in one word, the argument in another). */
static inline void node_step(uint64_t *step, const void *before, const void *after)
{
    uint64_t a[2], b[2];
    memcpy(a, before, sizeof a);
    memcpy(b, after, sizeof b);
    step[0] = b[0] - a[0];
    step[1] = b[1] - a[1];
}

/* Both words of a node at once, where the compiler can be told. */
#if defined(__GNUC__)
typedef uint64_t words __attribute__((vector_size(16)));
#endif

/* Whether the n nodes are (head, argument), and each one a step further. */
static inline int is_run(const void *nodes, uint64_t head, uint64_t argument, const uint64_t *step, size_t n)
{
    const unsigned char *p = (const unsigned char *)nodes;
    size_t i;
#if defined(__GNUC__)
    words wanted = {head, argument}, further = {step[0], step[1]}, now, next, difference = {0, 0};
    for (i = 0; i + 2 <= n; i += 2) {
        memcpy(&now, p + 16 * i, sizeof now);
        memcpy(&next, p + 16 * i + 16, sizeof next);
        difference |= (now ^ wanted) | (next ^ (wanted + further));
        wanted += further + further;
    }
    if (i < n) {
        memcpy(&now, p + 16 * i, sizeof now);
        difference |= now ^ wanted;
    }
#else
    uint64_t now[2], difference[2] = {0, 0};
    for (i = 0; i < n; i++) {
        memcpy(now, p + 16 * i, sizeof now);
        difference[0] |= now[0] ^ head;
        difference[1] |= now[1] ^ argument;
        head += step[0];
        argument += step[1];
    }
#endif
    return (difference[0] | difference[1]) == 0;
}

/* How many of the n >= 2 nodes are of the op of the first, and each as far from the one before as the second. */
static inline size_t count_alike(const void *nodes, size_t n)
{
    const unsigned char *p = (const unsigned char *)nodes;
    uint64_t first[2], step[2], now[2];
    size_t i;
    if (memcmp(p, p + 16, sizeof(uint32_t)) != 0) /* op */
        return 1;
    memcpy(first, p, sizeof first);
    node_step(step, p, p + 16);
    if (is_run(p, first[0], first[1], step, n))
        return n;
    for (i = 2; i < n; i++) {
        node_step(now, p + 16 * (i - 1), p + 16 * i);
        if (now[0] != step[0] || now[1] != step[1])
            break;
    }
    return i;
}

/* What nodes of a run begin with: no gradient, the mark UNSEEN, which is 0, and the number of their record. For gcc the zero is
 * some number: it would call memset, slower for so few. */
static inline void start_run(double *RESTRICT grad, uint8_t *RESTRICT seen, uint32_t *RESTRICT record_of, uint32_t record,
                             size_t n)
{
    static volatile const uint8_t nothing = 0;
    const uint8_t zero = nothing;
    size_t i;
    for (i = 0; i < n; i++)
        grad[i] = zero;
    for (i = 0; i < n; i++)
        seen[i] = zero;
    for (i = 0; i < n; i++)
        record_of[i] = record;
}

/* relu (_ops.pxd), of one number and of a run: without a branch, since signs are hard to predict. */
static inline double relu_value(double x) { return x > 0.0 ? x : 0.0; }
static inline double relu_partial(double x) { return x > 0.0 ? 1.0 : 0.0; }

static inline void relu_run(double *RESTRICT y, const double *RESTRICT x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        y[i] = relu_value(x[i]);
}

static inline void relu_partials(double *RESTRICT grad, const double *RESTRICT x, const double *RESTRICT g, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        grad[i] += relu_partial(x[i]) * g[i];
}

/* pow with some exponents, to the bit, mostly without calling pow.
 *
 * x * x and sqrt(x) are correctly rounded, other powers can be had as a sum of two doubles. glibc's pow errs by at most 0.511 ulp
 * plus 2^-14.4 ulp per unit of |log(result)| (sysdeps/ieee754/dbl-64/e_pow.c): below 0.55 ulp for every result, below 0.515 ulp
 * for those within 1e-30 .. 1e30. So the two can differ only where the exact result is less than 0.05 ulp, or 0.015 ulp, away
 * from a tie, and then pow gives the other neighbour of the tie or the same. There it decides. On other C libraries, whose pow
 * promises nothing, it always does.
 */
#define TIE 0.45            /* in ulp */
#define TIE_WITHIN_1E30 0.485

/* x * x - p exactly, for p = x * x rounded: by one fma where the processor is known to have it, else with both factors split
 * into halves of 26 bits (Dekker 1971). */
ALWAYS_INLINE double square_error(double x, double p, int has_fma)
{
    const double c = 134217729.0 * x;
    const double high = c - (c - x);
    const double low = x - high;
    return has_fma ? FMA(x, x, -p) : ((high * high - p) + 2.0 * high * low) + low * low;
}

/* The numbers that one step of Adam has. correction1 and correction2 are 1 - beta**step. */
struct adam {
    double learning_rate, beta1, beta2, eps, correction1, correction2;
};

/* The long loops and the powers (vectors.h), all in one variant. */
struct vectors {
    const char *name;
    double (*power)(double x, double k); /* pow(x, k), for k from -3 to 3 quickly */
    void (*products)(double *y, const double *w, const double *x, size_t rows, size_t n, size_t count);
    void (*dot_rows_partials)(double *gw, double *gx, const double *w, const double *x, const double *g, size_t rows, size_t n);
    void (*add_rows)(double *to, const double *from, const double *g, size_t step_i, size_t step_k, size_t count, size_t rows,
                     size_t n);
    void (*add_row)(double *to, const double *from, const double *g, size_t rows, size_t n, size_t step);
    void (*add_outer)(double *to, const double *x, const double *g, size_t rows, size_t n, size_t step);
    void (*add_dots)(double *to, const double *from, const double *g, size_t rows, size_t n, size_t step);
    size_t (*find_huge)(const double *x, size_t n); /* index of the first finite x whose square is infinite, or n */
    void (*adam_run)(double *data, double *grad, double *m, double *v, size_t n, const struct adam *adam);
};

#endif
