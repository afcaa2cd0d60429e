/* The long loops, compiled once for each width of vector that processors have; the module chooses when it is loaded.
 *
 * Every variant makes the same operations in the same order, so the same bits.
 */
#ifndef MICROGPT_VECTORS_H
#define MICROGPT_VECTORS_H

#include "kernels.h"

/* Inlined into each variant, and compiled for its processors there. */
#if defined(__GNUC__)
#define EACH static inline __attribute__((always_inline))
#else
#define EACH static inline
#endif

/* The partials of the rows of one matrix, the last row first: gw[r] += x * g[r], gx += w[r] * g[r]. gw and gx do not overlap. */
EACH void dot_rows_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
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

/* y = pow(x, exponent) where wanted: seldom. */
EACH void pow_where(const uint64_t *wanted, double *y, const double *x, double exponent, size_t n)
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
EACH void adam_run(double *RESTRICT data, double *RESTRICT grad, double *RESTRICT m, double *RESTRICT v, size_t n,
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

#define VARIANT(name, target)                                                                                                   \
    target static void name##_dot_rows_partials(double *gw, double *gx, const double *w, const double *x, const double *g,      \
                                                size_t rows, size_t n)                                                          \
    {                                                                                                                           \
        dot_rows_partials(gw, gx, w, x, g, rows, n);                                                                            \
    }                                                                                                                           \
    target static void name##_adam_run(double *data, double *grad, double *m, double *v, size_t n, double learning_rate,        \
                                       double beta1, double beta2, double eps, double correction1, double correction2)          \
    {                                                                                                                           \
        adam_run(data, grad, m, v, n, learning_rate, beta1, beta2, eps, correction1, correction2);                              \
    }                                                                                                                           \
    static const struct vectors name = {#name, name##_dot_rows_partials, name##_adam_run};

VARIANT(baseline, )
#if defined(__GNUC__) && defined(__x86_64__)
VARIANT(avx2, __attribute__((target("avx2"))))
#endif

/* The i-th variant, the widest last; NULL if there is none, or not on this processor. */
static const struct vectors *variant(int i)
{
    if (i == 0)
        return &baseline;
#if defined(__GNUC__) && defined(__x86_64__)
    if (i == 1 && __builtin_cpu_supports("avx2"))
        return &avx2;
#endif
    return NULL;
}

#endif
