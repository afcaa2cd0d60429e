/* The long loops and the powers, compiled once for each kind of processor; the module chooses when it is loaded.
 *
 * Every variant gives the same bits. What fma is used for are errors of rounding, by which to tell whether a result is sure.
 */
#ifndef MICROGPT_VECTORS_H
#define MICROGPT_VECTORS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of copies in the middle of a loop gcc makes calls of memcpy and memset: slower, where loops are short. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif

#include "kernels.h"

/* Inlined into each variant, and compiled for its processors there. */
#define EACH ALWAYS_INLINE

#if defined(__GNUC__)
typedef double quad __attribute__((vector_size(32), aligned(8), may_alias));

/* In place of a function: how one returns 32 bytes depends on the processor. */
#define FOUR(x) ((quad){x, x, x, x})

/* Loaded into a register once: gcc would read it from memory for each use, which makes `add_rows` a fifth slower. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(__clang__)
#define LOAD_ONCE(x) __asm__("" : "+x"(x))
#else
#define LOAD_ONCE(x) (void)(x)
#endif

/* y[p] = w x[p] for `count` <= 8 vectors and four rows or more: four rows at once, the last four some once more. */
EACH void products_of(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n, int count)
{
    size_t r, i, next;
    int p;
    for (next = 0; next < rows; next += 4) {
        quad sum[8];
        const double *wr;
        r = next + 4 <= rows ? next : rows - 4;
        wr = w + r * n;
        for (p = 0; p < count; p++)
            sum[p] = FOUR(0);
        for (i = 0; i < n; i++) {
            const quad column = {wr[i], wr[i + n], wr[i + 2 * n], wr[i + 3 * n]};
            for (p = 0; p < count; p++)
                sum[p] += column * FOUR(x[p * n + i]);
        }
        for (p = 0; p < count; p++)
            *(quad *)(y + p * rows + r) = sum[p];
    }
}

/* As add_rows, of `quads` times four columns and `count` rows, 1 or 2. The sums stay in registers. */
EACH void add_rows_of(double *RESTRICT to, const double *from, const double *g, size_t step_i, size_t step_k, size_t rows, size_t n,
                      int count, int quads)
{
    quad sum[2][4];
    size_t k;
    int i, c;
    for (i = 0; i < count; i++)
        for (c = 0; c < quads; c++)
            sum[i][c] = ((const quad *)(to + i * n))[c];
    for (k = rows; k-- > 0;)
        for (c = 0; c < quads; c++) {
            quad row = ((const quad *)(from + k * n))[c];
            LOAD_ONCE(row);
            for (i = 0; i < count; i++)
                sum[i][c] += row * FOUR(g[i * step_i + k * step_k]);
        }
    for (i = 0; i < count; i++)
        for (c = 0; c < quads; c++)
            ((quad *)(to + i * n))[c] = sum[i][c];
}

/* As dot_rows_partials, of `quads` times four columns: what is added to gx stays in registers from row to row. */
EACH void columns_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
                           size_t rows, size_t n, int quads)
{
    quad sum[4], xs[4];
    size_t r;
    int k;
    for (k = 0; k < quads; k++) {
        sum[k] = ((const quad *)gx)[k];
        xs[k] = ((const quad *)x)[k];
    }
    for (r = rows; r-- > 0;) {
        const quad gr = FOUR(g[r]);
        quad *gwr = (quad *)(gw + r * n);
        const quad *wr = (const quad *)(w + r * n);
        for (k = 0; k < quads; k++) {
            gwr[k] += xs[k] * gr;
            sum[k] += wr[k] * gr;
        }
    }
    for (k = 0; k < quads; k++)
        ((quad *)gx)[k] = sum[k];
}
#else /* never called, since `wide` is 0 there */
EACH void columns_partials(double *gw, double *gx, const double *w, const double *x, const double *g,
                           size_t rows, size_t n, int quads)
{
    (void)gw, (void)gx, (void)w, (void)x, (void)g, (void)rows, (void)n, (void)quads;
}
EACH void products_of(double *y, const double *w, const double *x, size_t rows, size_t n, int count)
{
    (void)y, (void)w, (void)x, (void)rows, (void)n, (void)count;
}
EACH void add_rows_of(double *to, const double *from, const double *g, size_t step_i, size_t step_k, size_t rows, size_t n,
                      int count, int quads)
{
    (void)to, (void)from, (void)g, (void)step_i, (void)step_k, (void)rows, (void)n, (void)count, (void)quads;
}
#endif

/* y[p] = w x[p], the products of one matrix with `count` vectors, every sum left to right. Where a register holds four doubles,
 * each weight is loaded once for up to eight vectors. */
EACH void products(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n, size_t count, int wide)
{
    size_t now;
    for (; wide && rows >= 4 && count > 1; count -= now, x += now * n, y += now * rows) {
        now = count <= 8 ? count : count < 16 ? (count + 1) / 2 : 8;
        switch (now) {
        case 2: products_of(y, w, x, rows, n, 2); break;
        case 3: products_of(y, w, x, rows, n, 3); break;
        case 4: products_of(y, w, x, rows, n, 4); break;
        case 5: products_of(y, w, x, rows, n, 5); break;
        case 6: products_of(y, w, x, rows, n, 6); break;
        case 7: products_of(y, w, x, rows, n, 7); break;
        default: products_of(y, w, x, rows, n, 8); break;
        }
    }
    for (; count > 0; count--, x += n, y += rows)
        dot_rows(y, w, x, rows, n);
}

/* The partials of the rows of one matrix, the last row first: gw[r] += x * g[r], gx += w[r] * g[r]. gw and gx do not overlap.
 * Column by column where they are few and a register holds four doubles; in long rows that would leave the caches. */
EACH void dot_rows_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
                            size_t rows, size_t n, int wide)
{
    size_t r = rows, i = 0;
    if (wide && n <= 48 && n % 4 == 0) {
        for (; i + 16 <= n; i += 16)
            columns_partials(gw + i, gx + i, w + i, x + i, g, rows, n, 4);
        for (; i < n; i += 4)
            columns_partials(gw + i, gx + i, w + i, x + i, g, rows, n, 1);
        return;
    }
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

/* to[i] += from[k] * g[i * step_i + k * step_k], for `count` rows i, and for each of them k from the last of `rows` to the first. */
EACH void add_rows(double *RESTRICT to, const double *from, const double *g, size_t step_i, size_t step_k, size_t count, size_t rows,
                   size_t n)
{
    size_t i, k, c;
    for (i = 0; i + 2 <= count; i += 2, to += 2 * n, g += 2 * step_i) {
        for (c = 0; c + 16 <= n; c += 16)
            add_rows_of(to + c, from + c, g, step_i, step_k, rows, n, 2, 4);
        for (; c + 4 <= n; c += 4)
            add_rows_of(to + c, from + c, g, step_i, step_k, rows, n, 2, 1);
        for (; c < n; c++)
            for (k = rows; k-- > 0;) {
                to[c] += from[k * n + c] * g[k * step_k];
                to[c + n] += from[k * n + c] * g[step_i + k * step_k];
            }
    }
    if (i < count) {
        for (c = 0; c + 16 <= n; c += 16)
            add_rows_of(to + c, from + c, g, step_i, step_k, rows, n, 1, 4);
        for (; c + 4 <= n; c += 4)
            add_rows_of(to + c, from + c, g, step_i, step_k, rows, n, 1, 1);
        for (; c < n; c++)
            for (k = rows; k-- > 0;)
                to[c] += from[k * n + c] * g[k * step_k];
    }
}

/* The partials of `products`, those of the last vector first: gw[r] += x[p] * g[p][r], gx[p] += w[r] * g[p][r]. gw and gx do not
 * overlap. As many rows of the matrix at once as the first cache holds. */
EACH void products_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
                            size_t rows, size_t n, size_t count, int wide)
{
    size_t some = n < 256 ? 2048 / n : 8, r = rows;
    if (!wide || count == 1) {
        for (; count > 0; count--)
            dot_rows_partials(gw, gx + (count - 1) * n, w, x + (count - 1) * n, g + (count - 1) * rows, rows, n, wide);
        return;
    }
    while (r > 0) {
        some = some < r ? some : r;
        r -= some;
        add_rows(gx, w + r * n, g + r, rows, 1, count, some, n);
        add_rows(gw + r * n, x, g + r, 1, rows, some, count, n);
    }
}

/* pow(x, k): from the power as a sum of two doubles, high the one next to it. With the other one enlarged to half an ulp at a
 * tie's width, a sum that rounds to high is proof that the power is not near a tie. */
EACH double power(double x, double k, int has_fma)
{
    double high = 0, low = 0, root, product, error;
    if (k == 2.0) {
        high = x * x;
        low = square_error(x, high, has_fma);
    } else if (has_fma & ((k == -1.0) | (k == -2.0))) {
        high = 1.0 / x;
        low = FMA(-high, x, 1.0) * high;
        if (k == -2.0) {
            product = high * high;
            error = FMA(high, high, -product) + 2.0 * high * low;
            high = product + error;
            low = error - (high - product);
        }
    } else if (has_fma & ((k == -0.5) | (k == -1.5))) {
        root = 1.0 / sqrt(x); /* next to x**-0.5; one step of Newton's iteration adds what it lacks */
        product = root * root;
        error = FMA(x, product, -1.0) + x * FMA(root, root, -product);
        error *= -0.5 * root;
        high = root + error;
        low = error - (high - root);
        if (k == -1.5) {
            const double inverse = 1.0 / x;
            product = inverse * high;
            error = FMA(inverse, high, -product) + inverse * low + FMA(-inverse, x, 1.0) * product;
            high = product + error;
            low = error - (high - product);
        }
    }
    if (GLIBC_POW & (fabs(high) > 1e-30) & (fabs(high) < 1e30) & (high + low * (0.5 / TIE_WITHIN_1E30) == high))
        return high;
    return pow(x, k);
}

/* a * b + c, with one rounding or two: for comparisons that hold with either. */
EACH double multiply_add(double a, double b, double c, int has_fma) { return has_fma ? FMA(a, b, c) : a * b + c; }

/* One step of Adam over n <= BLOCK parameters, in the order and with the roundings of microgpt.reference. The gradients are
 * zeroed.
 *
 * g * g and sqrt stand in for pow. Where pow might give another double, that mostly disappears in the sum or difference that
 * follows; `unsure` are the few parameters, one in two hundred, where it might not, and these are done again. Two loops: the
 * processor has more turns of a short one under way at once.
 */
#define BLOCK 64
EACH void adam_block(double *RESTRICT data, double *RESTRICT grad, double *RESTRICT m, double *RESTRICT v, size_t n,
                     double learning_rate, double beta1, double beta2, double eps, double correction1, double correction2,
                     int has_fma)
{
    double old_data[BLOCK], old_grad[BLOCK], old_v[BLOCK], v_hat[BLOCK];
    uint64_t unsure[BLOCK], any = 0; /* as wide as a double, so that the loops are vectorised on every processor */
    const double gain1 = 1.0 - beta1, gain2 = 1.0 - beta2;
    const int may_be_sure = GLIBC_POW & (eps > 1e-13); /* beside which a root below 1e-30 is nothing */
    static const volatile double two = 2.0, half = 0.5; /* which a compiler would take for a product and a root */
    size_t i;
    for (i = 0; i < n; i++) {
        const double g = old_grad[i] = grad[i];
        const double kept = beta2 * (old_v[i] = v[i]);
        const double square = g * g; /* or, next to a tie, the other double beside it: */
        const double other_square = multiply_add(square_error(g, square, has_fma), 0.5 / TIE, square, has_fma);
        const double new_v = kept + gain2 * square;
        /* a square below 1e-300, whose error is not exact, is nothing beside 1e-280 */
        const int v_is_sure = ((new_v == kept + gain2 * other_square) & (new_v > 1e-280)) | (g == 0.0);
        m[i] = beta1 * m[i] + gain1 * g;
        v[i] = new_v;
        v_hat[i] = new_v / correction2;
        grad[i] = 0.0;
        unsure[i] = v_is_sure & may_be_sure ? 0 : 1;
    }
    for (i = 0; i < n; i++) {
        const double m_hat = correction1 == 1.0 ? m[i] : m[i] / correction1; /* so after some 230 steps: a division less */
        const double root = sqrt(v_hat[i]);
        const double change = learning_rate * m_hat / (root + eps);
        const double new_data = (old_data[i] = data[i]) - change;
        /* v_hat is (root + e)^2 for an error e of remainder / (2 * root) */
        const double remainder = has_fma ? FMA(-root, root, v_hat[i])
                                         : (v_hat[i] - root * root) - square_error(root, root * root, has_fma);
        const double ulp_below = root - root * (1.0 - 0x1p-53);
        const int root_is_sure = (fabs(remainder) <= root * (2.0 * TIE_WITHIN_1E30) * ulp_below) & (v_hat[i] < 1e60);
        /* the other root is at most 2^-52 of it away; three roundings later, what comes of it less than 2^-50 */
        const double other_data = old_data[i] - change * (1.0 - copysign(0x1p-50, remainder));
        const int data_is_sure = root_is_sure | ((new_data == other_data) & (fabs(new_data) > 1e-280));
        data[i] = new_data;
        unsure[i] |= data_is_sure ? 0 : 1;
        any |= unsure[i];
    }
    for (i = 0; any && i < n; i++)
        if (unsure[i]) {
            v[i] = beta2 * old_v[i] + gain2 * pow(old_grad[i], two);
            data[i] = old_data[i] - learning_rate * (m[i] / correction1) / (pow(v[i] / correction2, half) + eps);
        }
}

EACH size_t find_huge(const double *x, size_t n)
{
    const double largest = 1.3407807929942596e154; /* whose square is finite, and the next one's is not */
    size_t i = 0, k;
    uint64_t huge;
    for (; i + BLOCK <= n; i += BLOCK) {
        huge = 0;
        for (k = i; k < i + BLOCK; k++)
            huge |= fabs(x[k]) > largest ? 1 : 0;
        if (huge)
            break;
    }
    while (i < n && !(fabs(x[i]) > largest && !isinf(x[i])))
        i++;
    return i;
}

EACH void adam_run(double *data, double *grad, double *m, double *v, size_t n, double learning_rate, double beta1, double beta2,
                   double eps, double correction1, double correction2, int has_fma)
{
    size_t count;
    for (; n > 0; n -= count, data += count, grad += count, m += count, v += count) {
        count = n < BLOCK ? n : BLOCK;
        if (correction1 == 1.0)
            adam_block(data, grad, m, v, count, learning_rate, beta1, beta2, eps, 1.0, correction2, has_fma);
        else
            adam_block(data, grad, m, v, count, learning_rate, beta1, beta2, eps, correction1, correction2, has_fma);
    }
}

#define VARIANT(name, target, has_fma, wide)                                                                                    \
    target static void name##_products(double *y, const double *w, const double *x, size_t rows, size_t n, size_t count)        \
    {                                                                                                                           \
        products(y, w, x, rows, n, count, wide);                                                                                \
    }                                                                                                                           \
    target static void name##_products_partials(double *gw, double *gx, const double *w, const double *x, const double *g,      \
                                                size_t rows, size_t n, size_t count)                                            \
    {                                                                                                                           \
        products_partials(gw, gx, w, x, g, rows, n, count, wide);                                                               \
    }                                                                                                                           \
    target static size_t name##_find_huge(const double *x, size_t n)                                                            \
    {                                                                                                                           \
        return find_huge(x, n);                                                                                                 \
    }                                                                                                                           \
    target static void name##_adam_run(double *data, double *grad, double *m, double *v, size_t n, double learning_rate,        \
                                       double beta1, double beta2, double eps, double correction1, double correction2)          \
    {                                                                                                                           \
        adam_run(data, grad, m, v, n, learning_rate, beta1, beta2, eps, correction1, correction2, has_fma);                     \
    }                                                                                                                           \
    target static double name##_power(double x, double k)                                                                       \
    {                                                                                                                           \
        return power(x, k, has_fma);                                                                                            \
    }                                                                                                                           \
    static const struct vectors name = {#name, name##_power, name##_products, name##_products_partials, name##_find_huge,       \
                                        name##_adam_run};

#if defined(__FP_FAST_FMA)
VARIANT(baseline, , 1, 0)
#else
VARIANT(baseline, , 0, 0)
#endif
#if defined(__GNUC__) && defined(__x86_64__)
VARIANT(avx2, __attribute__((target("avx2,fma"))), 1, 1)
#endif

/* The i-th variant, the widest last; NULL if there is none, or not on this processor. */
static const struct vectors *variant(int i)
{
    if (i == 0)
        return &baseline;
#if defined(__GNUC__) && defined(__x86_64__)
    if (i == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &avx2;
#endif
    return NULL;
}

#endif
