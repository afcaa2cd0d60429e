/* The inner loops that Cython cannot express: restrict pointers and the bits of a double.
 *
 * Nothing here reorders a sum: a dot adds its products left to right, and only independent sums run side by side.
 */
#ifndef MICROGPT_KERNELS_H
#define MICROGPT_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT __restrict__
#endif

/* A second version for processors with AVX2, chosen when the module is loaded; wider vectors, the same operations and bits.
 * AddressSanitizer is not up yet when the choice is made. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((target_clones("avx2", "default"), unused))
#else
#define WIDE inline
#endif

/* y[r] = w[r] . x for `rows` rows of length n: eight sums at once hide the latency of an addition. */
static inline void dot_rows(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n)
{
    size_t r = 0, i;
    for (; r + 8 <= rows; r += 8) {
        const double *w0 = w + r * n;
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
        for (i = 0; i < n; i++) {
            const double xi = x[i];
            s0 += w0[i] * xi;
            s1 += w0[i + n] * xi;
            s2 += w0[i + 2 * n] * xi;
            s3 += w0[i + 3 * n] * xi;
            s4 += w0[i + 4 * n] * xi;
            s5 += w0[i + 5 * n] * xi;
            s6 += w0[i + 6 * n] * xi;
            s7 += w0[i + 7 * n] * xi;
        }
        y[r] = s0, y[r + 1] = s1, y[r + 2] = s2, y[r + 3] = s3;
        y[r + 4] = s4, y[r + 5] = s5, y[r + 6] = s6, y[r + 7] = s7;
    }
    for (; r < rows; r++) {
        double s = 0;
        for (i = 0; i < n; i++)
            s += w[r * n + i] * x[i];
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

/* The partials of the rows of one matrix, the last row first: gw[r] += x * g[r], gx += w[r] * g[r]. gw and gx do not overlap. */
WIDE static void dot_rows_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
                                   size_t rows, size_t n)
{
    size_t r = rows, i;
    for (; r >= 4; r -= 4) {
        const double g0 = g[r - 1], g1 = g[r - 2], g2 = g[r - 3], g3 = g[r - 4];
        const double *wr = w + (r - 4) * n;
        double *gwr = gw + (r - 4) * n;
        for (i = 0; i < n; i++) {
            gwr[i + 3 * n] += x[i] * g0;
            gwr[i + 2 * n] += x[i] * g1;
            gwr[i + n] += x[i] * g2;
            gwr[i] += x[i] * g3;
            gx[i] = (((gx[i] + wr[i + 3 * n] * g0) + wr[i + 2 * n] * g1) + wr[i + n] * g2) + wr[i] * g3;
        }
    }
    for (; r > 0; r--)
        dot_partials(gw + (r - 1) * n, gx, w + (r - 1) * n, x, g[r - 1], n);
}

/* How many of the n bytes at p are `mark` before the first that is not. */
static inline size_t count_marks(const uint8_t *p, uint8_t mark, size_t n)
{
    const uint64_t all = UINT64_C(0x0101010101010101) * mark;
    size_t i = 0;
    uint64_t eight;
    uint32_t four;
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

/* How many of the n >= 2 nodes (_tape.pxd: op and a in one word, the argument in another) have the op of the first, and
 * operands as far from those of the node before as in the second. */
static inline size_t count_alike(const void *nodes, size_t n)
{
    const uint64_t *word = (const uint64_t *)nodes;
    const uint64_t step_a = word[2] - word[0], step_argument = word[3] - word[1];
    uint64_t differs;
    size_t i = 2, k;
    if (*(const uint32_t *)word != *(const uint32_t *)(word + 2))
        return 1;
    for (; i + 4 <= n; i += 4) {
        differs = 0;
        for (k = 2 * i; k < 2 * i + 8; k += 2)
            differs |= ((word[k] - word[k - 2]) ^ step_a) | ((word[k + 1] - word[k - 1]) ^ step_argument);
        if (differs)
            break;
    }
    for (; i < n; i++)
        if (word[2 * i] - word[2 * i - 2] != step_a || word[2 * i + 1] - word[2 * i - 1] != step_argument)
            break;
    return i;
}

/* pow(x, 2) and pow(x, 0.5), to the bit, mostly without calling pow.
 *
 * x * x and sqrt(x) are correctly rounded. glibc's pow errs by at most 0.511 ulp plus 2^-14.4 ulp per unit of |log(result)|
 * (sysdeps/ieee754/dbl-64/e_pow.c), so below 0.515 ulp for results within 1e-30 .. 1e30: the two can differ only where the
 * exact result is within 0.015 ulp of a tie. There, about one argument in thirty-three, pow decides. On other C libraries,
 * whose pow promises nothing, it always does.
 */
#define TIE 0.485

/* Distance between doubles of x's magnitude, x normal. */
static inline double ulp(double x)
{
    union { double value; uint64_t bits; } u;
    u.value = x;
    u.bits &= UINT64_C(0x7ff0000000000000);
    return u.value * 0x1p-52;
}

/* x * x - p exactly, for p = x * x rounded (Dekker 1971: both factors split into halves of 26 bits). */
static inline double square_error(double x, double p)
{
    const double c = 134217729.0 * x;
    const double high = c - (c - x);
    const double low = x - high;
    return ((high * high - p) + 2.0 * high * low) + low * low;
}

#if defined(__GLIBC__)
static inline int square_is_sure(double x, double p)
{
    return (p > 1e-30) & (p < 1e30) & (fabs(square_error(x, p)) < TIE * ulp(p));
}

/* The error of s is (x - s * s) / (2 * s), up to a term of second order that is far below a tie's width. */
static inline int root_is_sure(double x, double s)
{
    return (x > 1e-60) & (x < 1e60) & (fabs((x - s * s) - square_error(s, s * s)) < 2.0 * TIE * s * ulp(s));
}
#else
static inline int square_is_sure(double x, double p) { return (void)x, (void)p, 0; }
static inline int root_is_sure(double x, double s) { return (void)x, (void)s, 0; }
#endif

static inline double square(double x)
{
    const double p = x * x;
    return square_is_sure(x, p) ? p : pow(x, 2.0);
}

/* Index of the first finite x whose square is infinite, or n. */
static inline size_t find_huge(const double *x, size_t n)
{
    const double largest = 1.3407807929942596e154; /* whose square is finite, and the next one's is not */
    size_t i = 0, k;
    int huge;
    for (; i + 8 <= n; i += 8) {
        huge = 0;
        for (k = i; k < i + 8; k++)
            huge |= fabs(x[k]) > largest;
        if (huge)
            break;
    }
    while (i < n && !(fabs(x[i]) > largest && !isinf(x[i])))
        i++;
    return i;
}

/* y = pow(x, exponent) where wanted: seldom. */
static inline void pow_where(const uint64_t *wanted, double *y, const double *x, double exponent, size_t n)
{
    size_t i = 0, k;
    uint64_t any;
    while (i < n) {
        if (i + 8 <= n) {
            any = 0;
            for (k = i; k < i + 8; k++)
                any |= wanted[k];
            if (!any) {
                i += 8;
                continue;
            }
        }
        for (k = i + 8 < n ? i + 8 : n; i < k; i++)
            if (wanted[i])
                y[i] = pow(x[i], exponent);
    }
}

/* One step of Adam over n parameters, each in the order of microgpt.reference: block by block, so that the loops around the
 * few calls of pow stay vectorisable. The gradients are zeroed. */
#define ADAM_BLOCK 64
WIDE static void adam_run(double *RESTRICT data, double *RESTRICT grad, double *RESTRICT m, double *RESTRICT v, size_t n,
                          double learning_rate, double beta1, double beta2, double eps, double correction1, double correction2)
{
    double g2[ADAM_BLOCK], root[ADAM_BLOCK];
    uint64_t unsure[ADAM_BLOCK]; /* as wide as a double, so that the loops are vectorised on every processor */
    size_t i, count;
    for (; n > 0; n -= count, data += count, grad += count, m += count, v += count) {
        count = n < ADAM_BLOCK ? n : ADAM_BLOCK;
        for (i = 0; i < count; i++) {
            g2[i] = grad[i] * grad[i];
            unsure[i] = (grad[i] == 0.0) | square_is_sure(grad[i], g2[i]) ? 0 : 1;
        }
        pow_where(unsure, g2, grad, 2.0, count);
        for (i = 0; i < count; i++) {
            v[i] = beta2 * v[i] + (1.0 - beta2) * g2[i];
            g2[i] = v[i] / correction2;
            root[i] = sqrt(g2[i]);
            unsure[i] = (g2[i] == 0.0) | root_is_sure(g2[i], root[i]) ? 0 : 1;
        }
        pow_where(unsure, root, g2, 0.5, count);
        for (i = 0; i < count; i++)
            m[i] = beta1 * m[i] + (1.0 - beta1) * grad[i];
        if (correction1 == 1.0) /* after some 230 steps: a division less */
            for (i = 0; i < count; i++)
                data[i] -= learning_rate * m[i] / (root[i] + eps);
        else
            for (i = 0; i < count; i++)
                data[i] -= learning_rate * (m[i] / correction1) / (root[i] + eps);
        for (i = 0; i < count; i++)
            grad[i] = 0.0;
    }
}

#endif
