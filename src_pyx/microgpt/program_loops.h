/* The loops of program.h, which includes this file once for each kind of processor: RUN(name) is a name of that variant, VECTOR_FMA
 * whether it has fma instructions on lanes. */

#if VECTOR_FMA
#define FMA_LANES(a, b, c) ((lanes)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))

/* y = exp(x), in the lanes that are told: those where any good library has this result.
 *
 * x is k ln 2 + r; of the series of exp(r), 1 + r + r**2/2 + r**3/6 is a sum of two doubles, the rest of it one. */
EACH int RUN(exp_lanes)(lanes x, lanes *y)
{
    const double shift = 0x1.8p52, ln2 = 0x1.62e42fefcp-1, rest_of_ln2 = -0x1.c610ca86c3899p-37; /* k * ln2 is exact */
    const lanes size = WITHOUT_SIGN(x);
    lanes k = x * 0x1.71547652b82fep0 + shift;
    const lanes scale = DOUBLES((BITS(k) + 1023) << 52);
    lanes t, r, r_low, square, square_low, fourth, half, s, u, sixth, cube, lost, rest, high, low;
    masks sure;
    k -= shift;
    x -= k * ln2;
    t = k * rest_of_ln2;
    r = x - t;
    r_low = ((x - r) - t) - FMA_LANES(k, SAME(rest_of_ln2), -t);
    square = r * r;
    square_low = FMA_LANES(r, r, -square);
    fourth = square * square;
    {
        const lanes a0 = FMA_LANES(r, SAME(1.0 / 120), SAME(1.0 / 24)), a1 = FMA_LANES(r, SAME(1.0 / 5040), SAME(1.0 / 720));
        const lanes a2 = FMA_LANES(r, SAME(1.0 / 362880), SAME(1.0 / 40320));
        const lanes a3 = FMA_LANES(r, SAME(1.0 / 39916800), SAME(1.0 / 3628800));
        const lanes a4 = FMA_LANES(r, SAME(1.0 / 6227020800), SAME(1.0 / 479001600));
        const lanes a5 = FMA_LANES(r, SAME(1.0 / 1307674368000), SAME(1.0 / 87178291200));
        rest = FMA_LANES(FMA_LANES(a5, square, a4), fourth, FMA_LANES(a3, square, a2));
        rest = FMA_LANES(rest, fourth, FMA_LANES(a1, square, a0));
    }
    half = 0.5 * square;
    s = 1.0 + r;
    u = s + half;
    sixth = r * (1.0 / 6);
    cube = square * sixth;
    /* What roundings have lost: of the cube, 1/6 in it, and the sums. */
    lost = FMA_LANES(square, FMA_LANES(r, SAME(0x1.5555555555555p-57), FMA_LANES(r, SAME(1.0 / 6), -sixth)),
                     FMA_LANES(square, sixth, -cube));
    lost += ((r - (s - 1.0)) + (half - (u - s))) + FMA_LANES(square_low, 0.5 + sixth, r_low * u);
    rest = FMA_LANES(rest, fourth, lost);
    high = u + (cube + rest);
    low = ((u - high) + cube) + rest; /* to 0.002 ulp of high */
    sure = (high + low * (0.5 / EXP_TIE) == high) & (size < 700.0);
    *y = high * scale;
    return SET_LANES(&sure);
}

/* As exp_lanes, of pow(x, -1), pow(x, 2), and the derivative of the first, where x and the result are ordinary numbers. */
EACH int RUN(power_lanes)(lanes x, lanes *y, uint32_t op)
{
    const lanes size = WITHOUT_SIGN(x);
    lanes high, low, product, error;
    masks sure;
    if (op == CODE_SQUARE) {
        high = x * x;
        low = FMA_LANES(x, x, -high);
    } else {
        high = 1.0 / x;
        low = FMA_LANES(-high, x, SAME(1.0)) * high;
        if (op == CODE_RECIPROCAL_PARTIAL) {
            product = high * high;
            error = FMA_LANES(high, high, -product) + 2.0 * high * low;
            high = product + error;
            low = error - (high - product);
        }
    }
    sure = (high + low * (0.5 / TIE_WITHIN_1E30) == high) & (size > 1e-15) & (size < 1e15);
    *y = op == CODE_RECIPROCAL_PARTIAL ? -high : high;
    return SET_LANES(&sure);
}
#endif

/* A segment of an op with a loop of its own. `to` may be one of the operands. */
#define FOR_EACH(...)                                                                                                           \
    for (i = 0; i < n; i++, p += 4) {                                                                                           \
        double *const to = s + p[3];                                                                                            \
        const double *const a = s + p[0], *const b = s + p[1];                                  \
        const double *const c = s + p[2];                                                                       \
        (void)b, (void)c;                                                                                                       \
        __VA_ARGS__                                                                                                             \
    }                                                                                                                           \
    break;
#define FOR_EACH_ROW(...)                                                                                                       \
    FOR_EACH(for (j = 0; j < width; j++) {                                                                                      \
        const double x = a[j];                                                                                                  \
        __VA_ARGS__;                                                                                                            \
    })
#if VECTOR_FMA
/* By `quick`, which says in which lanes it is sure. The others are done again afterwards: a branch for each would be mispredicted. No
 * instruction of a segment reads what another one of it writes. */
#define FOR_EACH_QUICKLY(quick)                                                                                                 \
    if (width > 1) {                                                                                                            \
        doubts = 0;                                                                                                             \
        for (i = 0; i < n; i++, p += 4) {                                                                                       \
            double *const to = s + p[3];                                                                                        \
            const double *const a = s + p[0];                                                                                   \
            for (j = 0; j < width; j += LANES) {                                                                                \
                const lanes x = AT(a + j);                                                                                      \
                lanes y;                                                                                                        \
                const int sure = quick;                                                                                         \
                AT(to + j) = y;                                                                                                 \
                AT(doubt[doubts].x) = x;                                                                                        \
                doubt[doubts].to = to + j;                                                                                      \
                doubt[doubts].failed = failed + j;                                                                              \
                doubt[doubts].sure = sure;                                                                                      \
                doubts += sure != EVERY_LANE;                                                                                   \
            }                                                                                                                   \
            if (doubts + 2 > DOUBTS) {                                                                                          \
                resolve(doubt, doubts, op, other);                                                                              \
                doubts = 0;                                                                                                     \
            }                                                                                                                   \
        }                                                                                                                       \
        resolve(doubt, doubts, op, other);                                                                                      \
        break;                                                                                                                  \
    }
#else
#define FOR_EACH_QUICKLY(quick)
#endif

#if VECTOR_FMA
/* A minimum or maximum (`taken`), or its partial by the first (`share`): a half at a tie. */
#define FOR_EACH_CHOICE(first, second, better, what, ...)                                                                       \
    if (width > 1) {                                                                                                            \
        FOR_EACH(for (j = 0; j < width; j += LANES) {                                                                           \
            const lanes x = AT(first + j), y = AT(second + j);                                                                  \
            const masks is_first = (x better y) | (y != y), tie = (x == y) | ((x != x) & (y != y));                             \
            const lanes taken = DOUBLES((BITS(x) & is_first) | (BITS(y) & ~is_first));                                          \
            const lanes share = DOUBLES((BITS(SAME(0.5)) & tie) | (BITS(SAME(1.0)) & is_first & ~tie));                         \
            (void)taken, (void)share;                                                                                           \
            AT(to + j) = what;                                                                                                  \
        })                                                                                                                      \
    }                                                                                                                           \
    FOR_EACH_ROW(to[j] = __VA_ARGS__)
#else
#define FOR_EACH_CHOICE(first, second, better, what, ...) FOR_EACH_ROW(to[j] = __VA_ARGS__)
#endif

/* One softmax. Its results may replace the logits. */
EACH void RUN(softmax)(const uint32_t *p, double *s, int *failed, other_op other, const int width, const int n)
{
    double exps[MOST_LOGITS * 8], top[8], sum[8];
    int i, j;
    p++;
    for (j = 0; j < width; j++)
        top[j] = s[p[0] + j];
    for (i = 1; i < n; i++)
        for (j = 0; j < width; j++)
            top[j] = s[p[i] + j] > top[j] ? s[p[i] + j] : top[j];
    for (i = 0; i < n; i++)
        for (j = 0; j < width; j++)
            exps[i * width + j] = -top[j] + s[p[i] + j];
    i = 0;
#if VECTOR_FMA
    for (; width > 1 && i < n * width; i += LANES) { /* of one row they are sooner done by the library */
        const lanes x = AT(exps + i);
        lanes y;
        const int sure = RUN(exp_lanes)(x, &y);
        AT(exps + i) = y;
        for (j = 0; sure != EVERY_LANE && j < LANES; j++)
            if (!(sure >> j & 1))
                exps[i + j] = exp(x[j]);
    }
#endif
    for (; i < n * width; i++)
        exps[i] = exp(exps[i]);
    for (j = 0; j < width; j++)
        sum[j] = 0.0;
    for (i = 0; i < n; i++)
        for (j = 0; j < width; j++) {
            sum[j] += exps[i * width + j];
            s[p[n + i] + j] = exps[i * width + j];
        }
    for (j = 0; j < width; j++)
        s[p[2 * n] + j] = top[j] = sum[j];
#if VECTOR_FMA
    for (j = 0; width > 1 && j < width; j += LANES) {
        lanes y;
        const int sure = RUN(power_lanes)(AT(top + j), &y, CODE_RECIPROCAL);
        AT(sum + j) = y;
        for (i = 0; i < LANES; i++)
            top[j + i] = sure >> i & 1 ? 0.0 : top[j + i]; /* 0 for those that are done */
    }
#endif
    for (j = 0; j < width; j++) {
        const double x = top[j];
        if (x != 0.0)
            sum[j] = is_ordinary(x) ? power(x, -1.0, VECTOR_FMA) : other(CODE_RECIPROCAL, x, x, x, &failed[j]);
        s[p[2 * n + 1] + j] = sum[j];
    }
    for (i = 0; i < n; i++)
        for (j = 0; j < width; j++)
            s[p[2 * n + 2 + i] + j] = exps[i * width + j] * sum[j];
}

/* As run_code says. */
EACH const uint32_t *RUN(run_segments)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, int *failed,
                            other_op other, const int width)
{
    const int has_fma = VECTOR_FMA;
    size_t i, k, n;
    int j;
#if VECTOR_FMA
    struct doubt doubt[DOUBTS];
    size_t doubts;
#endif
    for (k = 0; k < segments; k++) {
        const uint32_t op = segment[k].op;
        n = segment[k].n;
        switch (op) {
        case CODE_MADD:
            if (width == 1) {
                for (i = 0; i < n; i++, p += 4)
                    s[p[3]] = s[p[0]] * s[p[1]] + s[p[2]];
                break;
            }
            FOR_EACH(for (j = 0; j < width; j += LANES) AT(to + j) = AT(a + j) * AT(b + j) + AT(c + j);)
        case CODE_EXP:
            FOR_EACH_QUICKLY(RUN(exp_lanes)(x, &y))
#if VECTOR_FMA
            for (; n >= 2 * LANES; n -= LANES, p += 4 * LANES) {
                const lanes x = {s[p[0]], s[p[4]], s[p[8]], s[p[12]]};
                lanes y;
                const int sure = RUN(exp_lanes)(x, &y);
                for (j = 0; j < LANES; j++)
                    s[p[4 * j + 3]] = sure >> j & 1 ? y[j] : exp_or_fail(x[j], failed);
            }
#endif
            FOR_EACH_ROW(to[j] = exp_or_fail(x, &failed[j]))
        case CODE_LOG:
            FOR_EACH_ROW(failed[j] |= x <= 0.0; to[j] = log(x))
        case CODE_RELU:
            FOR_EACH_ROW(to[j] = relu_value(x))
        case CODE_TANH:
            FOR_EACH_ROW(to[j] = tanh(x))
        case CODE_SQRT:
            FOR_EACH_ROW(failed[j] |= x <= 0.0; to[j] = sqrt(x))
        case CODE_MINIMUM:
        case CODE_MINIMUM_CONSTANT:
            FOR_EACH_CHOICE(a, b, <, taken, x < b[j] || b[j] != b[j] ? x : b[j])
        case CODE_MAXIMUM:
        case CODE_MAXIMUM_CONSTANT:
            FOR_EACH_CHOICE(a, b, >, taken, x > b[j] || b[j] != b[j] ? x : b[j])
        case CODE_PARTIAL_A + CODE_MINIMUM:
        case CODE_PARTIAL_A + CODE_MINIMUM_CONSTANT:
            FOR_EACH_CHOICE(a, b, <, share, taken_partial(x, b[j], x < b[j]))
        case CODE_PARTIAL_B + CODE_MINIMUM:
            FOR_EACH_CHOICE(b, a, <, share, taken_partial(b[j], x, b[j] < x))
        case CODE_PARTIAL_A + CODE_MAXIMUM:
        case CODE_PARTIAL_A + CODE_MAXIMUM_CONSTANT:
            FOR_EACH_CHOICE(a, b, >, share, taken_partial(x, b[j], x > b[j]))
        case CODE_PARTIAL_B + CODE_MAXIMUM:
            FOR_EACH_CHOICE(b, a, >, share, taken_partial(b[j], x, b[j] > x))
        case CODE_LARGER:
#if VECTOR_FMA
            if (width > 1) {
                FOR_EACH(for (j = 0; j < width; j += LANES) {
                    const masks larger = AT(b + j) > AT(a + j);
                    AT(to + j) = DOUBLES((BITS(AT(b + j)) & larger) | (BITS(AT(a + j)) & ~larger));
                })
            }
#endif
            FOR_EACH_ROW(to[j] = b[j] > x ? b[j] : x)
        case CODE_RECIPROCAL:
            FOR_EACH_QUICKLY(RUN(power_lanes)(x, &y, CODE_RECIPROCAL))
            FOR_EACH_ROW(to[j] = is_ordinary(x) ? power(x, -1.0, has_fma) : other(op, x, x, x, &failed[j]))
        case CODE_SQUARE:
            FOR_EACH_QUICKLY(RUN(power_lanes)(x, &y, CODE_SQUARE))
            FOR_EACH_ROW(to[j] = is_ordinary(x) ? power(x, 2.0, has_fma) : other(op, x, x, x, &failed[j]))
        case CODE_RECIPROCAL_PARTIAL:
            FOR_EACH_QUICKLY(RUN(power_lanes)(x, &y, CODE_RECIPROCAL_PARTIAL))
            FOR_EACH_ROW(to[j] = -power(x, -2.0, has_fma))
        case CODE_SOFTMAX:
            for (i = 0; i < n; i++) {
                if (p[0] == 4)
                    RUN(softmax)(p, s, failed, other, width, 4);
                else
                    RUN(softmax)(p, s, failed, other, width, (int)p[0]);
                p += 3 + 3 * p[0];
            }
            break;
        case CODE_PARTIAL_A + CODE_LOG:
            FOR_EACH(if (width == 1) to[0] = 1.0 / a[0];
                     else for (j = 0; j < width; j += LANES) AT(to + j) = 1.0 / AT(a + j);)
        case CODE_PARTIAL_A + CODE_RELU:
            FOR_EACH_ROW(to[j] = relu_partial(x))
        case CODE_PARTIAL_A + CODE_SQRT:
            FOR_EACH_ROW(to[j] = 0.5 / x)
        default:
            FOR_EACH_ROW(to[j] = other(op, x, b[j], c[j], &failed[j]))
        }
    }
    return p;
}

static const uint32_t *RUN(run_one)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, int *failed,
                         other_op other)
{
    return RUN(run_segments)(segment, segments, p, s, failed, other, 1);
}

static const uint32_t *RUN(run_four)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, int *failed,
                          other_op other)
{
    return RUN(run_segments)(segment, segments, p, s, failed, other, 4);
}

static const uint32_t *RUN(run_eight)(const struct segment *segment, size_t segments, const uint32_t *p, double *s, int *failed,
                           other_op other)
{
    return RUN(run_segments)(segment, segments, p, s, failed, other, 8);
}

static const struct runner RUN(runner) = {RUN(run_one), RUN(run_four), RUN(run_eight)};

#undef FMA_LANES
#undef FOR_EACH
#undef FOR_EACH_ROW
#undef FOR_EACH_QUICKLY
#undef FOR_EACH_CHOICE
