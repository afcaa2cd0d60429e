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

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

/* Inlined into each variant, and compiled for its processors there. */
#define EACH ALWAYS_INLINE

/* Lanes: four doubles at once, or one where the compiler has no vectors. Macros in place of functions: how one returns 32 bytes
 * depends on the processor. */
#if defined(__GNUC__)
#define LANES 4
typedef double lanes __attribute__((vector_size(32)));
typedef lanes stored __attribute__((aligned(8), may_alias));
typedef int64_t masks __attribute__((vector_size(32))); /* all bits of a lane, or none */
#define AT(p) (*(stored *)(p))
#define SAME(x) ((lanes){x, x, x, x})
#define BITS(x) ((masks)(x))
#define DOUBLES(bits) ((lanes)(bits))
#define SQRT(x) ((lanes){sqrt((x)[0]), sqrt((x)[1]), sqrt((x)[2]), sqrt((x)[3])})
#define EACH_LANE(f, x, y, k) ((lanes){f((x)[0], (y)[0], k), f((x)[1], (y)[1], k), f((x)[2], (y)[2], k), f((x)[3], (y)[3], k)})
EACH int set_lanes(const masks *m) { return (int)(((*m)[0] & 1) | ((*m)[1] & 2) | ((*m)[2] & 4) | ((*m)[3] & 8)); }
#else
#define LANES 1
typedef double lanes;
typedef int64_t masks;
#define AT(p) (*(p))
#define SAME(x) (x)
#define BITS(x) bits_of(x)
#define DOUBLES(bits) double_of(bits)
#define SQRT(x) sqrt(x)
#define EACH_LANE(f, x, y, k) f(x, y, k)
EACH int set_lanes(const masks *m) { return *m != 0; }
EACH int64_t bits_of(double x) { int64_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
EACH double double_of(int64_t bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
#endif
#define EVERY_LANE ((1 << LANES) - 1) /* as set_lanes tells it: a bit for each */
#define WITHOUT_SIGN(x) DOUBLES(BITS(x) & INT64_MAX)
#define WITH_SIGN_OF(x, y) DOUBLES(BITS(x) | (BITS(y) & INT64_MIN))
#define POWER_OF_TWO(x) DOUBLES(BITS(x) & INT64_C(0x7ff0000000000000)) /* the largest up to x */

#if defined(__GNUC__)
/* Loaded into a register once: gcc would read it from memory for each use, which makes `add_rows` a fifth slower. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(__clang__)
#define LOAD_ONCE(x) __asm__("" : "+x"(x))
#else
#define LOAD_ONCE(x) (void)(x)
#endif

/* These doubles of two vectors one after the other. */
#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (masks){i, j, k, l})
#endif

/* Four rows of length n as columns, eight doubles from one column to the next. */
EACH void turn_rows(double *RESTRICT columns, const double *w, size_t n, size_t width)
{
    size_t i;
    for (i = 0; i + 4 <= width; i += 4, columns += 32) {
        const lanes a = AT(w + i), b = AT(w + i + n), c = AT(w + i + 2 * n), d = AT(w + i + 3 * n);
        const lanes ab = SHUFFLE(a, b, 0, 4, 2, 6), ba = SHUFFLE(a, b, 1, 5, 3, 7);
        const lanes cd = SHUFFLE(c, d, 0, 4, 2, 6), dc = SHUFFLE(c, d, 1, 5, 3, 7);
        AT(columns) = SHUFFLE(ab, cd, 0, 1, 4, 5);
        AT(columns + 8) = SHUFFLE(ba, dc, 0, 1, 4, 5);
        AT(columns + 16) = SHUFFLE(ab, cd, 2, 3, 6, 7);
        AT(columns + 24) = SHUFFLE(ba, dc, 2, 3, 6, 7);
    }
    for (; i < width; i++, columns += 8)
        AT(columns) = (lanes){w[i], w[i + n], w[i + 2 * n], w[i + 3 * n]};
}

/* y[p] += w x[p] for eight rows, turned to `width` columns, and `count` <= 4 vectors. The sums stay in registers. */
EACH void add_products(double *RESTRICT y, const double *columns, const double *x, size_t rows, size_t n, size_t width, int count)
{
    lanes sum[4][2];
    size_t i;
    int p;
    for (p = 0; p < count; p++) {
        sum[p][0] = AT(y + p * rows);
        sum[p][1] = AT(y + p * rows + 4);
    }
    for (i = 0; i < width; i++) {
        const lanes upper = AT(columns + 8 * i), lower = AT(columns + 8 * i + 4);
        for (p = 0; p < count; p++) {
            sum[p][0] += upper * SAME(x[p * n + i]);
            sum[p][1] += lower * SAME(x[p * n + i]);
        }
    }
    for (p = 0; p < count; p++) {
        AT(y + p * rows) = sum[p][0];
        AT(y + p * rows + 4) = sum[p][1];
    }
}

/* As products, of eight rows or more: eight at once, the last eight some once more. */
EACH void products_of(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n, size_t count)
{
    double columns[8 * 64];
    size_t next, r, c, p, width, now;
    for (next = 0; next < rows; next += 8) {
        r = next + 8 <= rows ? next : rows - 8;
        for (p = 0; p < count; p++)
            AT(y + p * rows + r) = AT(y + p * rows + r + 4) = SAME(0.0);
        for (c = 0; c < n; c += width) {
            width = n - c < 64 ? n - c : 64;
            turn_rows(columns, w + r * n + c, n, width);
            turn_rows(columns + 4, w + (r + 4) * n + c, n, width);
            for (p = 0; p < count; p += now) {
                now = count - p == 5 ? 3 : count - p < 4 ? count - p : 4; /* never 1, which would wait for each addition */
                switch (now) {
                case 2: add_products(y + p * rows + r, columns, x + p * n + c, rows, n, width, 2); break;
                case 3: add_products(y + p * rows + r, columns, x + p * n + c, rows, n, width, 3); break;
                default: add_products(y + p * rows + r, columns, x + p * n + c, rows, n, width, 4); break;
                }
            }
        }
    }
}

/* As add_rows, of `quads` times four columns and `count` rows, 1 or 2. The sums stay in registers. */
EACH void add_rows_of(double *RESTRICT to, const double *from, const double *g, size_t step_i, size_t step_k, size_t rows, size_t n,
                      int count, int quads)
{
    lanes sum[2][4];
    size_t k;
    int i, c;
    for (i = 0; i < count; i++)
        for (c = 0; c < quads; c++)
            sum[i][c] = AT(to + i * n + 4 * c);
    for (k = rows; k-- > 0;)
        for (c = 0; c < quads; c++) {
            lanes row = AT(from + k * n + 4 * c);
            LOAD_ONCE(row);
            for (i = 0; i < count; i++)
                sum[i][c] += row * SAME(g[i * step_i + k * step_k]);
        }
    for (i = 0; i < count; i++)
        for (c = 0; c < quads; c++)
            AT(to + i * n + 4 * c) = sum[i][c];
}

/* As dot_rows_partials, of `quads` times four columns: what is added to gx stays in registers from row to row. */
EACH void columns_partials(double *RESTRICT gw, double *RESTRICT gx, const double *w, const double *x, const double *g,
                           size_t rows, size_t n, int quads)
{
    lanes sum[4], xs[4];
    size_t r;
    int k;
    for (k = 0; k < quads; k++) {
        sum[k] = AT(gx + 4 * k);
        xs[k] = AT(x + 4 * k);
    }
    for (r = rows; r-- > 0;) {
        const lanes gr = SAME(g[r]);
        for (k = 0; k < quads; k++) {
            AT(gw + r * n + 4 * k) += xs[k] * gr;
            sum[k] += AT(w + r * n + 4 * k) * gr;
        }
    }
    for (k = 0; k < quads; k++)
        AT(gx + 4 * k) = sum[k];
}
#else /* never called, since `wide` is 0 there */
EACH void columns_partials(double *gw, double *gx, const double *w, const double *x, const double *g,
                           size_t rows, size_t n, int quads)
{
    (void)gw, (void)gx, (void)w, (void)x, (void)g, (void)rows, (void)n, (void)quads;
}
EACH void products_of(double *y, const double *w, const double *x, size_t rows, size_t n, size_t count)
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
 * each weight is loaded once for up to four vectors. */
EACH void products(double *RESTRICT y, const double *w, const double *x, size_t rows, size_t n, size_t count, int wide)
{
    if (wide && rows >= 8 && count > 1) {
        products_of(y, w, x, rows, n, count);
        return;
    }
    for (; count > 0; count--, x += n, y += rows)
        dot_rows(y, w, x, rows, n, n);
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

/* As add_rows, in parts that the first cache holds. */
EACH void add_many_rows(double *RESTRICT to, const double *from, const double *g, size_t step_i, size_t step_k, size_t count,
                        size_t rows, size_t n, int wide)
{
    size_t some = n < 256 ? 2048 / n : 8, k, i, c;
    while (rows > 0) {
        some = some < rows ? some : rows;
        rows -= some;
        if (wide) {
            add_rows(to, from + rows * n, g + rows * step_k, step_i, step_k, count, some, n);
            continue;
        }
        for (i = 0; i < count; i++)
            for (k = some; k-- > 0;) {
                const double gk = g[i * step_i + (rows + k) * step_k];
                for (c = 0; c < n; c++)
                    to[i * n + c] += from[(rows + k) * n + c] * gk;
            }
    }
}

/* to += from[k] * g[k], k from the last of `rows` rows, a step apart, to the first. */
EACH void add_row(double *RESTRICT to, const double *from, const double *g, size_t rows, size_t n, size_t step, int wide)
{
    size_t c = 0, k;
#if defined(__GNUC__)
    if (wide) {
        for (; c + 16 <= n; c += 16) {
            lanes s0 = AT(to + c), s1 = AT(to + c + 4), s2 = AT(to + c + 8), s3 = AT(to + c + 12);
            for (k = rows; k-- > 0;) {
                const double *row = from + k * step + c;
                const lanes gk = SAME(g[k]);
                s0 += AT(row) * gk;
                s1 += AT(row + 4) * gk;
                s2 += AT(row + 8) * gk;
                s3 += AT(row + 12) * gk;
            }
            AT(to + c) = s0, AT(to + c + 4) = s1, AT(to + c + 8) = s2, AT(to + c + 12) = s3;
        }
        for (; c + 4 <= n; c += 4) {
            lanes sum = AT(to + c);
            for (k = rows; k-- > 0;)
                sum += AT(from + k * step + c) * SAME(g[k]);
            AT(to + c) = sum;
        }
    }
#else
    (void)wide;
#endif
    for (; c < n; c++) {
        double sum = to[c];
        for (k = rows; k-- > 0;)
            sum += from[k * step + c] * g[k];
        to[c] = sum;
    }
}

/* to[r] += x * g[r], for `rows` rows, a step apart. */
EACH void add_outer(double *RESTRICT to, const double *x, const double *g, size_t rows, size_t n, size_t step, int wide)
{
    size_t r, c;
    for (r = 0; r < rows; r++) {
        double *RESTRICT row = to + r * step;
        const double gr = g[r];
        c = 0;
#if defined(__GNUC__)
        if (wide)
            for (; c + 4 <= n; c += 4)
                AT(row + c) += AT(x + c) * SAME(gr);
#else
        (void)wide;
#endif
        for (; c < n; c++)
            row[c] += x[c] * gr;
    }
}

/* to[r] += from[r][k] * g[k], k from the last of `n` to the first, for `rows` rows, a step apart: eight sums at once, as dot_rows. */
EACH void add_dots(double *RESTRICT to, const double *from, const double *g, size_t rows, size_t n, size_t step)
{
    size_t r = 0, k;
    for (; r + 8 <= rows; r += 8) {
        const double *w = from + r * step;
        double s0 = to[r], s1 = to[r + 1], s2 = to[r + 2], s3 = to[r + 3];
        double s4 = to[r + 4], s5 = to[r + 5], s6 = to[r + 6], s7 = to[r + 7];
        for (k = n; k-- > 0;) {
            const double gk = g[k];
            s0 += w[k] * gk;
            s1 += w[k + step] * gk;
            s2 += w[k + 2 * step] * gk;
            s3 += w[k + 3 * step] * gk;
            s4 += w[k + 4 * step] * gk;
            s5 += w[k + 5 * step] * gk;
            s6 += w[k + 6 * step] * gk;
            s7 += w[k + 7 * step] * gk;
        }
        to[r] = s0, to[r + 1] = s1, to[r + 2] = s2, to[r + 3] = s3;
        to[r + 4] = s4, to[r + 5] = s5, to[r + 6] = s6, to[r + 7] = s7;
    }
    for (; r < rows; r++) {
        double sum = to[r];
        for (k = n; k-- > 0;)
            sum += from[r * step + k] * g[k];
        to[r] = sum;
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

/* Apart from the loops, which else would be arranged around them. */
#if defined(__GNUC__)
#define SELDOM static __attribute__((noinline, cold))
#else
#define SELDOM static
#endif

/* v and v_hat, and data, for lanes of which some are not sure: these as the reference has them. The exponents are hidden from the
 * compiler, which would take a product and a root. */
SELDOM void redo_v(double *v, double *v_hat, const double *grad, const lanes *new_v, int sure, const struct adam *adam)
{
    static const volatile double two = 2.0;
    double sure_v[LANES];
    int k;
    memcpy(sure_v, new_v, sizeof sure_v);
    for (k = 0; k < LANES; k++) {
        v[k] = sure >> k & 1 ? sure_v[k] : adam->beta2 * v[k] + (1.0 - adam->beta2) * pow(grad[k], two);
        v_hat[k] = v[k] / adam->correction2;
    }
}

SELDOM void redo_data(double *data, const double *m, const double *v_hat, const lanes *new_data, int sure,
                      const struct adam *adam)
{
    static const volatile double half = 0.5;
    double sure_data[LANES];
    int k;
    memcpy(sure_data, new_data, sizeof sure_data);
    for (k = 0; k < LANES; k++)
        data[k] = sure >> k & 1 ? sure_data[k]
                               : data[k] - adam->learning_rate * (m[k] / adam->correction1) / (pow(v_hat[k], half) + adam->eps);
}

/* v_hat - root * root, for a root next to that of v_hat: exact with an fma, else next to it. */
EACH double root_error(double root, double v_hat, int has_fma)
{
    return has_fma ? FMA(-root, root, v_hat) : (v_hat - root * root) - square_error(root, root * root, has_fma);
}

/* One step of Adam over n <= BLOCK parameters, a multiple of LANES, in the order and with the roundings of microgpt.reference.
 * The gradients are zeroed.
 *
 * g * g and sqrt stand in for pow. Where pow might give another double, that mostly disappears in the sum or difference that
 * follows; the few parameters, one in two hundred, where it might not are done again. So are SMALL ones: a square below 1e-300,
 * whose error is not exact, is nothing beside those that are not. `set`: set_lanes, as this kind of processor does it. Two loops:
 * of short ones the processor has more turns under way at once.
 */
#define BLOCK 64
#define SMALL 1e-280
EACH void adam_block(double *RESTRICT data, double *RESTRICT grad, double *RESTRICT m, double *RESTRICT v, size_t n,
                     const struct adam *adam, double correction1, int has_fma, int (*set)(const masks *))
{
    const double learning_rate = adam->learning_rate, beta1 = adam->beta1, beta2 = adam->beta2, eps = adam->eps;
    const double gain1 = 1.0 - beta1, gain2 = 1.0 - beta2, correction2 = adam->correction2;
    const int may_be_sure = GLIBC_POW && eps > 1e-13 ? EVERY_LANE : 0; /* beside 1e-13 a root below 1e-30 is nothing */
    double v_hats[BLOCK];
    size_t i;
    for (i = 0; i < n; i += LANES) {
        const lanes g = AT(grad + i);
        const lanes kept = beta2 * AT(v + i);
        const lanes square = g * g; /* or, next to a tie, the other double beside it: */
        const lanes other_square = EACH_LANE(square_error, g, square, has_fma) * (0.5 / TIE) + square;
        const lanes new_v = kept + gain2 * square;
        const masks is_sure = ((new_v == kept + gain2 * other_square) & (new_v > SMALL)) | (g == 0.0);
        const int sure = set(&is_sure) & may_be_sure;
        AT(m + i) = beta1 * AT(m + i) + gain1 * g;
        if (sure == EVERY_LANE) {
            AT(v + i) = new_v;
            AT(v_hats + i) = new_v / correction2;
        } else {
            const lanes known = new_v;
            redo_v(v + i, v_hats + i, grad + i, &known, sure, adam);
        }
        AT(grad + i) = SAME(0.0);
    }
    for (i = 0; i < n; i += LANES) {
        const lanes v_hat = AT(v_hats + i), old_data = AT(data + i);
        const lanes root = SQRT(v_hat);
        lanes m_hat = AT(m + i);
        lanes change, new_data, remainder, other_data;
        masks is_sure;
        int sure;
        if (correction1 != 1.0) /* so after some 230 steps: a division less */
            m_hat /= correction1;
        change = learning_rate * m_hat / (root + eps);
        new_data = old_data - change;
        /* v_hat is (root + e)^2 for an error e of remainder / (2 * root). An ulp of root is 2^-52 of the power of two below it,
         * if that is root itself, too: no double below its square has a root that is rounded up to it. */
        remainder = EACH_LANE(root_error, root, v_hat, has_fma);
        is_sure = (WITHOUT_SIGN(remainder) <= root * (2.0 * TIE_WITHIN_1E30 * 0x1p-52) * POWER_OF_TWO(root)) & (v_hat < 1e60);
        /* the other root is at most 2^-52 of it away, and what comes of it, after two roundings of each, less than 3.5 * 2^-52 */
        other_data = old_data - change * (1.0 - WITH_SIGN_OF(SAME(0x1.cp-51), remainder));
        is_sure |= (new_data == other_data) & (WITHOUT_SIGN(new_data) > SMALL);
        sure = set(&is_sure) & may_be_sure;
        if (sure == EVERY_LANE) {
            AT(data + i) = new_data;
        } else {
            const lanes known = new_data;
            redo_data(data + i, m + i, v_hats + i, &known, sure, adam);
        }
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

EACH void adam_run(double *data, double *grad, double *m, double *v, size_t n, const struct adam *adam, int has_fma,
                   int (*set)(const masks *))
{
    const size_t rest = n % LANES;
    size_t count, i;
    for (i = 0; i < n - rest; i += count) {
        count = n - rest - i < BLOCK ? n - rest - i : BLOCK;
        if (adam->correction1 == 1.0)
            adam_block(data + i, grad + i, m + i, v + i, count, adam, 1.0, has_fma, set);
        else
            adam_block(data + i, grad + i, m + i, v + i, count, adam, adam->correction1, has_fma, set);
    }
    if (rest > 0) {
        double some[4][LANES] = {{0}};
        double *from[4];
        int k;
        from[0] = data + i, from[1] = grad + i, from[2] = m + i, from[3] = v + i;
        for (k = 0; k < 4; k++)
            memcpy(some[k], from[k], rest * sizeof(double));
        adam_block(some[0], some[1], some[2], some[3], LANES, adam, adam->correction1, has_fma, set);
        for (k = 0; k < 4; k++)
            memcpy(from[k], some[k], rest * sizeof(double));
    }
}

#define VARIANT(name, target, has_fma, wide, set)                                                                               \
    target static void name##_products(double *y, const double *w, const double *x, size_t rows, size_t n, size_t count)        \
    {                                                                                                                           \
        products(y, w, x, rows, n, count, wide);                                                                                \
    }                                                                                                                           \
    target static void name##_dot_rows_partials(double *gw, double *gx, const double *w, const double *x, const double *g,      \
                                                size_t rows, size_t n)                                                          \
    {                                                                                                                           \
        dot_rows_partials(gw, gx, w, x, g, rows, n, wide);                                                                      \
    }                                                                                                                           \
    target static void name##_add_rows(double *to, const double *from, const double *g, size_t step_i, size_t step_k,            \
                                       size_t count, size_t rows, size_t n)                                                     \
    {                                                                                                                           \
        add_many_rows(to, from, g, step_i, step_k, count, rows, n, wide);                                                       \
    }                                                                                                                           \
    target static void name##_add_row(double *to, const double *from, const double *g, size_t rows, size_t n, size_t step)      \
    {                                                                                                                           \
        add_row(to, from, g, rows, n, step, wide);                                                                              \
    }                                                                                                                           \
    target static void name##_add_outer(double *to, const double *x, const double *g, size_t rows, size_t n, size_t step)       \
    {                                                                                                                           \
        add_outer(to, x, g, rows, n, step, wide);                                                                               \
    }                                                                                                                           \
    target static void name##_add_dots(double *to, const double *from, const double *g, size_t rows, size_t n, size_t step)     \
    {                                                                                                                           \
        add_dots(to, from, g, rows, n, step);                                                                                   \
    }                                                                                                                           \
    target static size_t name##_find_huge(const double *x, size_t n)                                                            \
    {                                                                                                                           \
        return find_huge(x, n);                                                                                                 \
    }                                                                                                                           \
    target static void name##_adam_run(double *data, double *grad, double *m, double *v, size_t n, const struct adam *adam)     \
    {                                                                                                                           \
        adam_run(data, grad, m, v, n, adam, has_fma, set);                                                                      \
    }                                                                                                                           \
    target static double name##_power(double x, double k)                                                                       \
    {                                                                                                                           \
        return power(x, k, has_fma);                                                                                            \
    }                                                                                                                           \
    static const struct vectors name = {#name, name##_power, name##_products, name##_dot_rows_partials, name##_add_rows,        \
                                        name##_add_row, name##_add_outer, name##_add_dots, name##_find_huge, name##_adam_run};

#if defined(__FP_FAST_FMA)
VARIANT(baseline, , 1, 0, set_lanes)
#else
VARIANT(baseline, , 0, 0, set_lanes)
#endif
#if defined(__GNUC__) && defined(__x86_64__)
__attribute__((target("avx2,fma"))) static inline int avx2_set_lanes(const masks *m)
{
    return _mm256_movemask_pd((__m256d)*m);
}
VARIANT(avx2, __attribute__((target("avx2,fma"))), 1, 1, avx2_set_lanes)
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
