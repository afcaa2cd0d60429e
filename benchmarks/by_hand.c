/* The main job without a graph: training steps of the GPT of microgpt.py (one layer of width 16, four heads, 16 positions) with
 * its gradients written by hand, to tell what the graph costs. Doubles; every sum goes in the order of microgpt.reference, so
 * losses are equal to the last bit. Several sums go side by side: those of all positions, or those of a row's elements. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EACH(i, n) for (int i = 0; i < (n); i++)
#define DOWN(i, n) for (int i = (n) - 1; i >= 0; i--)

enum { SIDE_BY_SIDE = 4, N = 16, HEADS = 4, DIM = N / HEADS, WIDE = 4 * N, BLOCK = 16 };

typedef double lanes[BLOCK]; /* a number for each position; where the document has ended, anything, which no other number sees */

struct parameters { /* and gradients, and moments */
    double wte[VOCAB][N], wpe[BLOCK][N], head[VOCAB][N], wq[N][N], wk[N][N], wv[N][N], wo[N][N], fc1[WIDE][N], fc2[N][WIDE];
};

/* Rows i to i + some of y = W x. */
INLINE void some_rows(const double *w, const lanes *restrict x, lanes *restrict y, int i, int some, int columns, int p)
{
    double sum[SIDE_BY_SIDE][BLOCK];
    EACH(b, some) EACH(t, p) sum[b][t] = 0;
    EACH(j, columns) EACH(b, some) EACH(t, p) sum[b][t] += w[(i + b) * columns + j] * x[j][t];
    EACH(b, some) EACH(t, p) y[i + b][t] = sum[b][t];
}

INLINE void product(const double *w, const lanes *restrict x, lanes *restrict y, int rows, int columns, int p)
{
    int i = 0;
    for (; i + SIDE_BY_SIDE <= rows; i += SIDE_BY_SIDE) some_rows(w, x, y, i, SIDE_BY_SIDE, columns, p);
    for (; i < rows; i++) some_rows(w, x, y, i, 1, columns, p);
}

/* What the rows of W, the last one first, add to the gradients of x. */
INLINE void back_to_x(const double *w, const lanes *restrict dy, lanes *restrict dx, int rows, int columns, int p)
{
    for (int j = 0; j < columns; j += SIDE_BY_SIDE) {
        double sum[SIDE_BY_SIDE][BLOCK];
        EACH(b, SIDE_BY_SIDE) EACH(t, p) sum[b][t] = dx[j + b][t];
        DOWN(i, rows) EACH(b, SIDE_BY_SIDE) EACH(t, p) sum[b][t] += w[i * columns + j + b] * dy[i][t];
        EACH(b, SIDE_BY_SIDE) EACH(t, p) dx[j + b][t] = sum[b][t];
    }
}

/* The gradients of W, the last position first. */
INLINE void back_to_w(double *restrict dw, const lanes *restrict x, const lanes *restrict dy, int rows, int columns, int n)
{
    double across[BLOCK][WIDE];
    EACH(j, columns) EACH(t, n) across[t][j] = x[j][t];
    EACH(i, rows) {
        double sum[WIDE];
        EACH(j, columns) sum[j] = 0;
        DOWN(t, n) EACH(j, columns) sum[j] += across[t][j] * dy[i][t];
        EACH(j, columns) dw[i * columns + j] = sum[j];
    }
}

INLINE void back(const double *w, double *dw, const lanes *x, const lanes *dy, lanes *dx, int rows, int columns, int n, int p)
{
    back_to_w(dw, x, dy, rows, columns, n);
    back_to_x(w, dy, dx, rows, columns, p);
}

INLINE void norm(const lanes *x, lanes *y, lanes mean, lanes scale, int n, int p)
{
    double sum[BLOCK] = {0};
    EACH(j, N) EACH(t, p) sum[t] += x[j][t] * x[j][t];
    EACH(t, n) scale[t] = pow(mean[t] = sum[t] * (1.0 / N) + 1e-5, -0.5);
    EACH(j, N) EACH(t, p) y[j][t] = x[j][t] * scale[t];
}

INLINE void norm_back(const lanes *x, const lanes *dy, lanes *dx, const lanes mean, const lanes scale, int n, int p)
{
    double sum[BLOCK] = {0};
    DOWN(j, N) EACH(t, p) sum[t] += x[j][t] * dy[j][t];
    EACH(t, n) sum[t] = 1.0 / N * (-0.5 * pow(mean[t], -1.5) * sum[t]);
    EACH(j, N) EACH(t, p) dx[j][t] = dx[j][t] + scale[t] * dy[j][t] + x[j][t] * sum[t] + x[j][t] * sum[t];
}

/* One head. e[s][t] is the exponential of what position t sees in position s, 0 for s > t, total[t] their sum, weight[s][t] its
 * share of them. */
INLINE void attend(const lanes *q, const lanes *k, const lanes *v, lanes *e, lanes *weight, lanes total, lanes inverse,
                   lanes *restrict out, int n, int p)
{
    lanes top;
    EACH(s, n) {
        double sum[BLOCK] = {0};
        EACH(j, DIM) EACH(t, p) sum[t] += q[j][t] * k[j][s];
        EACH(t, p) e[s][t] = sum[t] * 0.5;
        for (int t = s; t < n; t++) top[t] = s == 0 || e[s][t] > top[t] ? e[s][t] : top[t];
    }
    EACH(t, p) total[t] = 0;
    EACH(s, n) {
        EACH(t, s) e[s][t] = 0;
        for (int t = s; t < n; t++) e[s][t] = exp(e[s][t] - top[t]);
        EACH(t, p) total[t] += e[s][t];
    }
    EACH(t, n) inverse[t] = pow(total[t], -1.0);
    EACH(s, n) EACH(t, p) weight[s][t] = e[s][t] * inverse[t];
    EACH(j, DIM) {
        double sum[BLOCK] = {0};
        EACH(s, n) EACH(t, p) sum[t] += weight[s][t] * v[j][s];
        EACH(t, p) out[j][t] = sum[t];
    }
}

INLINE void attend_back(const lanes *q, const lanes *k, const lanes *v, const lanes *e, const lanes *weight, const lanes total,
                        const lanes inverse, const lanes *dout, lanes *restrict dq, lanes *restrict dk, lanes *restrict dv, int n,
                        int p)
{
    lanes de[BLOCK], de_of[BLOCK], weight_of[BLOCK], dtotal = {0}, dinverse; /* _of: by the position that sees */
    EACH(t, n) dinverse[t] = -1.0 * pow(total[t], -2.0);
    DOWN(s, n) {
        double sum[BLOCK] = {0};
        DOWN(j, DIM) EACH(t, p) sum[t] += v[j][s] * dout[j][t];
        EACH(t, p) dtotal[t] += dinverse[t] * (e[s][t] * sum[t]);
        EACH(t, p) de[s][t] = inverse[t] * sum[t];
    }
    EACH(s, n) EACH(t, p) de[s][t] = 0.5 * (e[s][t] * (de[s][t] + dtotal[t]));
    EACH(s, n) EACH(t, n) {
        de_of[t][s] = de[s][t];
        weight_of[t][s] = weight[s][t];
    }
    EACH(j, DIM) {
        double query[BLOCK] = {0}, key[BLOCK] = {0}, value[BLOCK] = {0};
        DOWN(s, n) EACH(t, p) query[t] += k[j][s] * de[s][t];
        DOWN(t, n) EACH(s, p) key[s] += q[j][t] * de_of[t][s];
        DOWN(t, n) EACH(s, p) value[s] += weight_of[t][s] * dout[j][t];
        EACH(t, p) dq[j][t] = query[t];
        EACH(t, p) dk[j][t] = key[t];
        EACH(t, p) dv[j][t] = value[t];
    }
}

/* Return the loss of a document and fill in all gradients. `n`: its positions, `p`: lanes, at least as many. */
INLINE double gradients(const struct parameters *w, struct parameters *d, const int *tokens, int n, int p)
{
    static lanes x[N], x0[N], h[N], q[N], k[N], v[N], out[N], x1[N], h1[N], wide[WIDE], rest[WIDE], x2[N], z[VOCAB];
    static lanes e[HEADS][BLOCK], weight[HEADS][BLOCK], total[HEADS], inverse[HEADS], mean[3], scale[3];
    static lanes dz[VOCAB], dtarget, dx[N], dh[N], dwide[WIDE], dout[N], dq[N], dk[N], dv[N];
    double loss = 0;

    EACH(t, n) EACH(j, N) x[j][t] = w->wte[tokens[t]][j] + w->wpe[t][j];
    norm(x, x0, mean[0], scale[0], n, p);
    norm(x0, h, mean[1], scale[1], n, p);
    product(w->wq[0], h, q, N, N, p);
    product(w->wk[0], h, k, N, N, p);
    product(w->wv[0], h, v, N, N, p);
    EACH(a, HEADS) attend(q + a * DIM, k + a * DIM, v + a * DIM, e[a], weight[a], total[a], inverse[a], out + a * DIM, n, p);
    product(w->wo[0], out, x1, N, N, p);
    EACH(j, N) EACH(t, p) x1[j][t] += x0[j][t];
    norm(x1, h1, mean[2], scale[2], n, p);
    product(w->fc1[0], h1, wide, WIDE, N, p);
    EACH(i, WIDE) EACH(t, p) rest[i][t] = wide[i][t] > 0 ? wide[i][t] : 0;
    product(w->fc2[0], rest, x2, N, WIDE, p);
    EACH(j, N) EACH(t, p) x2[j][t] += x1[j][t];
    product(w->head[0], x2, z, VOCAB, N, p);

    memset(d->wte, 0, sizeof d->wte);
    memset(d->wpe, 0, sizeof d->wpe);
    memset(dx, 0, sizeof dx);
    EACH(t, n) {
        double top = z[0][t], sum = 0, power, dp, dsum;
        int target = tokens[t + 1];
        EACH(i, VOCAB) top = z[i][t] > top ? z[i][t] : top;
        EACH(i, VOCAB) sum += z[i][t] = exp(z[i][t] - top);
        power = pow(sum, -1.0);
        loss += log(z[target][t] * power) * -1.0;
        dp = 1.0 / (z[target][t] * power) * (-1.0 * (1.0 / n));
        dsum = -1.0 * pow(sum, -2.0) * (z[target][t] * dp);
        EACH(i, VOCAB) dz[i][t] = z[i][t] * dsum;
        dz[target][t] = z[target][t] * (power * dp + dsum);
    }
    back_to_w(d->head[0], x2, dz, VOCAB, N, n);
    EACH(t, n) {
        dtarget[t] = dz[tokens[t + 1]][t];
        dz[tokens[t + 1]][t] = 0; /* the row of the target comes last of all */
    }
    back_to_x(w->head[0], dz, dx, VOCAB, N, p);
    EACH(t, n) EACH(j, N) dx[j][t] += w->head[tokens[t + 1]][j] * dtarget[t];

    memset(dwide, 0, sizeof dwide);
    back(w->fc2[0], d->fc2[0], rest, dx, dwide, N, WIDE, n, p);
    EACH(i, WIDE) EACH(t, p) dwide[i][t] = wide[i][t] > 0 ? dwide[i][t] : 0;
    memset(dh, 0, sizeof dh);
    back(w->fc1[0], d->fc1[0], h1, dwide, dh, WIDE, N, n, p);
    norm_back(x1, dh, dx, mean[2], scale[2], n, p);
    memset(dout, 0, sizeof dout);
    back(w->wo[0], d->wo[0], out, dx, dout, N, N, n, p);
    memset(dh, 0, sizeof dh);
    DOWN(a, HEADS) {
        int r = a * DIM;
        attend_back(q + r, k + r, v + r, e[a], weight[a], total[a], inverse[a], dout + r, dq + r, dk + r, dv + r, n, p);
        back(w->wv[r], d->wv[r], h, dv + r, dh, DIM, N, n, p);
        /* Keys before queries, but in the first position, where they go by turns. */
        double first[N];
        EACH(j, N) first[j] = dh[j][0];
        back(w->wk[r], d->wk[r], h, dk + r, dh, DIM, N, n, p);
        back(w->wq[r], d->wq[r], h, dq + r, dh, DIM, N, n, p);
        DOWN(i, DIM) EACH(j, N) first[j] = first[j] + w->wk[r + i][j] * dk[r + i][0] + w->wq[r + i][j] * dq[r + i][0];
        EACH(j, N) dh[j][0] = first[j];
    }
    norm_back(x0, dh, dx, mean[1], scale[1], n, p);
    memset(dh, 0, sizeof dh);
    norm_back(x, dx, dh, mean[0], scale[0], n, p);
    DOWN(t, n) EACH(j, N) {
        d->wte[tokens[t]][j] += dh[j][t];
        d->wpe[t][j] += dh[j][t];
    }
    return 1.0 / n * loss;
}

INLINE double power_of_two(double x) /* the largest that is not above x > 0 */
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7ff0000000000000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x / by, rounded correctly where `inverse` is 1 / by, rounded correctly (Markstein 1990). */
INLINE double quotient(double x, double by, double inverse)
{
    double close = x * inverse;
    return fma(fma(-close, by, x), inverse, close);
}

/* Python's g ** 2 and x ** 0.5 are the C library's pow, which is within 0.52 units in the last place. Products and roots, rounded
 * correctly, can differ from it only where the exact result is within 0.02 of the middle between two doubles. Where the other one
 * of these would be seen in the result, pow is called: for one parameter in a hundred. `size` is a multiple of SOME. */
INLINE void adam(double *restrict w, const double *restrict d, double *restrict m, double *restrict v, int size, double rate,
                 double correction1, double correction2)
{
    const double beta1 = 0.85, beta2 = 0.99, eps = 1e-8;
    const double inverse1 = 1 / correction1, inverse2 = 1 / correction2;
    enum { SOME = 32 };
    for (int start = 0; start < size; start += SOME, w += SOME, d += SOME, m += SOME, v += SOME) {
        double old[SOME], before[SOME];
        int64_t doubtful[SOME], any = 0;
        EACH(i, SOME) {
            double g = d[i], square = g * g, beside = square + 1.05 * fma(g, g, -square);
            double kept = beta2 * v[i], next = kept + (1 - beta2) * square;
            double hat = quotient(next, correction2, inverse2), root = sqrt(hat);
            double middle = 0.95 * 0x1p-52 * root * power_of_two(root), error = fabs(fma(-root, root, hat));
            double mean = beta1 * m[i] + (1 - beta1) * g;
            double change = rate * quotient(mean, correction1, inverse1) / (root + eps), result = w[i] - change;
            double less = w[i] - change * (1 - 0x1p-51), more = w[i] - change * (1 + 0x1p-51);
            doubtful[i] = ((g != 0) & ((square < 1e-280) | (next != kept + (1 - beta2) * beside))) |
                          ((error > middle) & ((less != result) | (more != result)));
            any |= doubtful[i];
            old[i] = w[i];
            before[i] = v[i];
            w[i] = result;
            m[i] = mean;
            v[i] = next;
        }
        if (any)
            EACH(i, SOME) if (doubtful[i]) {
                v[i] = beta2 * before[i] + (1 - beta2) * pow(d[i], 2.0);
                w[i] = old[i] - rate * (m[i] / correction1) / (pow(v[i] / correction2, 0.5) + eps);
            }
    }
}

/* Make training steps `first` to `end` of `steps`, each on one document: `tokens` of document i begin at starts[i]. */
void train(struct parameters *w, struct parameters *m, struct parameters *v, const int *tokens, const int *starts, int first,
           int end, int steps, double *losses)
{
    static struct parameters d;
    for (int s = first; s < end; s++) {
        const int *document = tokens + starts[s];
        int n = starts[s + 1] - starts[s] - 1;
        if (n <= 8)
            losses[s] = gradients(w, &d, document, n, 8);
        else if (n <= 12)
            losses[s] = gradients(w, &d, document, n, 12);
        else
            losses[s] = gradients(w, &d, document, n < BLOCK ? n : BLOCK, BLOCK);
        adam((double *)w, (const double *)&d, (double *)m, (double *)v, sizeof d / sizeof(double), 0.01 * (1 - (double)s / steps),
             1 - pow(0.85, s + 1), 1 - pow(0.99, s + 1));
    }
}
