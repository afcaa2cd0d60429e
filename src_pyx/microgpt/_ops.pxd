# Every op of the tape (listed in _tape.pxd), its value and its partials side by side; names and edges are in _ops.pyx.
#
# Values and roundings are those of microgpt.reference. What a partial would raise there, the value raises here, when the node
# is made: a node that exists can be differentiated.

cimport cython
from libc.math cimport (
    INFINITY, acos, asin, atan, atan2, cos, cosh, erf, erfc, exp, expm1, fabs, floor, isfinite, log, log1p, log2, log10, sin,
    sinh, sqrt, tan, tanh
)
from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport (
    ABS, ADD, ADD_CONSTANT, CONSTANT_POW, COS, CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, EXP, FLOOR, LAST_BINARY, LAST_UNARY, LOG,
    MAXIMUM, MAXIMUM_CONSTANT, MINIMUM, MINIMUM_CONSTANT, MUL, MUL_CONSTANT, POW, POW_CONSTANT, RELU, SIGMOID, SIN, SQRT, SUM,
    SUM_LISTED, TANH, WHERE, Node, Steps, Tape, look_at, look_at_run, node_at, partials, record_at, stride_at
)
from microgpt._vectors cimport chosen

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    double relu_value(double x)
    double relu_partial(double x)
    void relu_partials(double *grad, const double *x, const double *g, size_t n)
    void dot_partials(double *gw, double *gx, const double *w, const double *x, double g, size_t n)

cdef double domain_error(str op, str allowed, double x) except? -1.0 with gil
cdef double overflow_error(str op, double x) except? -1.0 with gil
cdef double pow_at_edge(double x, double k) except? -1.0 with gil
cdef double pow_of_values(double x, double y) except? -1.0 with gil
cdef double lgamma_value(double x) except? -1.0 with gil
cdef double hypot_value(double x, double y) except? -1.0 with gil
cdef double atan2_error() except? -1.0 with gil
cdef double rare_value(uint8_t op, double x, double y) except? -1.0 nogil
cdef double rare_partial_a(uint8_t op, double x, double y, double result) noexcept nogil
cdef double rare_partial_b(uint8_t op, double x, double y, double result) noexcept nogil
cdef str name_of(uint8_t op)
cdef uint32_t operand_count(Tape *t, uint32_t i) noexcept
cdef uint32_t operand(Tape *t, uint32_t i, uint32_t k) noexcept
cdef double partial(Tape *t, uint32_t i, uint32_t k) noexcept


# exp: any data, overflow above 709.78. Partial: result.
cdef inline double exp_value(double x) except? -1.0 nogil:
    cdef double y = exp(x)
    if y == INFINITY and x != INFINITY:
        return overflow_error("exp", x)
    return y


# log: data > 0. Partial: 1 / data.
cdef inline double log_value(double x) except? -1.0 nogil:
    if x <= 0.0:
        return domain_error("log", "data > 0", x)
    return log(x)


# relu (kernels.h): any data; 0 and nan -> 0. Partial: 1 where data > 0, else 0.


# tanh: any data; inf -> 1. Partial: 1 - result**2, from the result.
cdef inline double tanh_partial(double result) noexcept nogil:
    return 1.0 - result * result


# sigmoid: any data; no overflow on either side. Partial from the operand, which keeps its digits where the result is next to 1.
@cython.cdivision(True)
cdef inline double sigmoid_value(double x) noexcept nogil:
    cdef double e
    if x >= 0.0:
        return 1.0 / (1.0 + exp(-x))
    e = exp(x)
    return e / (1.0 + e)


@cython.cdivision(True)
cdef inline double sigmoid_partial(double x) noexcept nogil:
    cdef double e = exp(-fabs(x))
    return e / ((1.0 + e) * (1.0 + e))


# sqrt: data > 0, since the partial at 0 is infinite. Partial: 0.5 / result.
cdef inline double sqrt_value(double x) except? -1.0 nogil:
    if x <= 0.0:
        return domain_error("sqrt", "data > 0", x)
    return sqrt(x)


# sin, cos: finite data. Partials: cos(data), -sin(data).
cdef inline double sin_value(double x) except? -1.0 nogil:
    if fabs(x) == INFINITY:
        return domain_error("sin", "finite data", x)
    return sin(x)


cdef inline double cos_value(double x) except? -1.0 nogil:
    if fabs(x) == INFINITY:
        return domain_error("cos", "finite data", x)
    return cos(x)


# abs: any data. Partial: the sign of data, 0 at 0 and nan.
cdef inline double abs_partial(double x) noexcept nogil:
    return 1.0 if x > 0.0 else -1.0 if x < 0.0 else 0.0


# atan: any data; inf -> pi / 2. Partial: 1 / (1 + data**2).
@cython.cdivision(True)
cdef inline double atan_partial(double x) noexcept nogil:
    return 1.0 / (1.0 + x * x)


# asin, acos: -1 < data < 1, since the partials at the ends are infinite. Partials: 1 / sqrt(1 - data**2), and minus that, as a
# product, which keeps its digits next to the ends.
cdef inline double asin_value(double x) except? -1.0 nogil:
    if fabs(x) >= 1.0:
        return domain_error("asin", "-1 < data < 1", x)
    return asin(x)


cdef inline double acos_value(double x) except? -1.0 nogil:
    if fabs(x) >= 1.0:
        return domain_error("acos", "-1 < data < 1", x)
    return acos(x)


@cython.cdivision(True)
cdef inline double asin_partial(double x) noexcept nogil:
    return 1.0 / sqrt((1.0 - x) * (1.0 + x))


# sinh, cosh: any data, overflow beyond 710.47 on either side. Partials: cosh(data), sinh(data).
cdef inline double sinh_value(double x) except? -1.0 nogil:
    cdef double y = sinh(x)
    if fabs(y) == INFINITY and fabs(x) != INFINITY:
        return overflow_error("sinh", x)
    return y


cdef inline double cosh_value(double x) except? -1.0 nogil:
    cdef double y = cosh(x)
    if y == INFINITY and fabs(x) != INFINITY:
        return overflow_error("cosh", x)
    return y


# log1p, log(1 + data): data > -1. Partial: 1 / (1 + data).
cdef inline double log1p_value(double x) except? -1.0 nogil:
    if x <= -1.0:
        return domain_error("log1p", "data > -1", x)
    return log1p(x)


@cython.cdivision(True)
cdef inline double log1p_partial(double x) noexcept nogil:
    return 1.0 / (1.0 + x)


# expm1, exp(data) - 1: any data, overflow above 709.78. Partial: exp(data), from the operand: the result next to -1 has lost it.
cdef inline double expm1_value(double x) except? -1.0 nogil:
    cdef double y = expm1(x)
    if y == INFINITY and x != INFINITY:
        return overflow_error("expm1", x)
    return y


# log2, log10: data > 0. Partials: log2(e) / data, log10(e) / data.
cdef inline double log2_value(double x) except? -1.0 nogil:
    if x <= 0.0:
        return domain_error("log2", "data > 0", x)
    return log2(x)


@cython.cdivision(True)
cdef inline double log2_partial(double x) noexcept nogil:
    return 1.4426950408889634 / x


cdef inline double log10_value(double x) except? -1.0 nogil:
    if x <= 0.0:
        return domain_error("log10", "data > 0", x)
    return log10(x)


@cython.cdivision(True)
cdef inline double log10_partial(double x) noexcept nogil:
    return 0.4342944819032518 / x


# erf: any data; inf -> 1. Partial: 2 / sqrt(pi) * exp(-data**2).
cdef inline double erf_partial(double x) noexcept nogil:
    return 1.1283791670955126 * exp(-x * x)


# lgamma (_ops.pyx), log(|gamma|): all but 0, -1, -2, ... and -inf; overflow above 2.559e305. Partial: digamma, by its recurrence
# up to 10, then by the asymptotic series (Abramowitz & Stegun 6.3.5, 6.3.18); below 0 by reflection (6.3.7), with the tangent of
# the distance to the nearest whole number, which keeps its digits. The error is absolute next to a zero, such as that at 1.46.
@cython.cdivision(True)
cdef inline double digamma(double x) noexcept nogil:
    cdef double result = 0.0
    cdef double r
    if x < 0.0:
        result = -3.141592653589793 / tan(3.141592653589793 * (x - floor(x + 0.5)))
        x = 1.0 - x
    while x < 10.0:
        result -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    return result + (log(x) - 0.5 / x - r * (1.0 / 12.0 - r * (1.0 / 120.0 - r * (1.0 / 252.0 - r * (
        1.0 / 240.0 - r * (1.0 / 132.0 - r * (691.0 / 32760.0 - r * (1.0 / 12.0))))))))


# gelu, data * Phi(data) with the normal distribution Phi, no approximation: any data; -inf -> 0. Partial: Phi(data) + data * the
# density. A factor that has vanished wins against an infinite one, here and in silu: that is the limit.
cdef inline double normal(double x) noexcept nogil:
    return 0.5 * erfc(-0.7071067811865476 * x)


cdef inline double gelu_value(double x) noexcept nogil:
    cdef double p = normal(x)
    return 0.0 if p == 0.0 else x * p


cdef inline double gelu_partial(double x) noexcept nogil:
    cdef double density = 0.3989422804014327 * exp(-0.5 * x * x)
    return normal(x) if density == 0.0 else normal(x) + x * density


# silu, data * sigmoid(data): any data; -inf -> 0. Partial: sigmoid + data * its partial.
cdef inline double silu_value(double x) noexcept nogil:
    cdef double s = sigmoid_value(x)
    return 0.0 if s == 0.0 else x * s


cdef inline double silu_partial(double x) noexcept nogil:
    cdef double slope = sigmoid_partial(x)
    return sigmoid_value(x) if slope == 0.0 else sigmoid_value(x) + x * slope


# softplus, log(1 + exp(data)): any data; no overflow on either side. Partial: sigmoid(data).
cdef inline double softplus_value(double x) noexcept nogil:
    return (x if x > 0.0 else 0.0) + log1p(exp(-fabs(x)))


# floor: any data; inf and nan stay. Partial: 0, also where it jumps.


# where: the operand that the condition picked. Partial: 1.


# pow with a number as exponent: a negative base needs a whole exponent, a zero base an exponent of 1, 2, 3, ... or more.
# Partial: k * data**(k - 1). The bounds of the short way keep value and partial within 1e-300 .. 1e300.
cdef inline double pow_value(double x, double k) except? -1.0 nogil:
    if -3.0 <= k <= 3.0 and (1e-75 < x < 1e75 or (-1e75 < x < -1e-75 and k == <int>k)):
        return chosen.power(x, k)
    return pow_at_edge(x, k)


cdef inline double pow_partial(double x, double k) noexcept nogil:
    return k * (x if k == 2.0 else chosen.power(x, k - 1.0))


# pow of two Values: data > 0, or 0 to a power of 1 or more. Partials: y * x**(y - 1) and x**y * log(x), the latter 0 at x = 0.
cdef inline double exponent_partial(double x, double result) noexcept nogil:
    return result * log(x) if x > 0.0 else 0.0


# minimum, maximum: any data; nan loses against a number. Partials: 1 for the one taken, a half each at a tie.
cdef inline bint taken(uint8_t op, double x, double y) noexcept nogil:
    if op == MINIMUM or op == MINIMUM_CONSTANT:
        return x < y or y != y
    return x > y or y != y


cdef inline double taken_partial(uint8_t op, double x, double y) noexcept nogil:
    if x == y or (x != x and y != y):
        return 0.5
    return 1.0 if taken(op, x, y) else 0.0


# atan2, of y and x: any point but the origin, where it has no derivative; jumps by 2 pi at y = 0, x < 0. Partials: x and -y, over
# x**2 + y**2, without squares that overflow or vanish; 0 where both are infinite.
cdef inline double atan2_value(double y, double x) except? -1.0 nogil:
    if y == 0.0 and x == 0.0:
        return atan2_error()
    return atan2(y, x)


@cython.cdivision(True)
cdef inline double over_square_sum(double x, double y) noexcept nogil:
    """Return x / (x**2 + y**2)."""
    cdef double q
    if fabs(x) == INFINITY and fabs(y) == INFINITY:
        return 0.0
    if fabs(x) >= fabs(y):
        q = y / x
        return 1.0 / x / (1.0 + q * q)
    q = x / y
    return q / y / (1.0 + q * q)


# hypot (_ops.pyx), sqrt(x**2 + y**2) without overflow on the way: any data. Partials: x / result, y / result; the sign of the
# operand where the result is its size, so 0 at (0, 0).
@cython.cdivision(True)
cdef inline double hypot_partial(double x, double result) noexcept nogil:
    return abs_partial(x) if fabs(x) == result else x / result


cdef inline double evaluate(uint8_t op, double x, double y) except? -1.0 nogil:
    """Return the value of a scalar op of `x`, and of `y`: second operand or constant. Raises where the op has no value."""
    if op == EXP:
        return exp_value(x)
    elif op == LOG:
        return log_value(x)
    elif op == RELU:
        return relu_value(x)
    elif op == TANH:
        return tanh(x)
    elif op == SIGMOID:
        return sigmoid_value(x)
    elif op == SQRT:
        return sqrt_value(x)
    elif op == SIN:
        return sin_value(x)
    elif op == COS:
        return cos_value(x)
    elif op == ABS:
        return fabs(x)
    elif op == ADD or op == ADD_CONSTANT:
        return x + y
    elif op == MUL or op == MUL_CONSTANT:
        return x * y
    elif op == POW_CONSTANT:
        return pow_value(x, y)
    elif op == CONSTANT_POW:
        return pow_of_values(y, x)
    elif op == POW:
        return pow_of_values(x, y)
    elif op == MINIMUM or op == MINIMUM_CONSTANT or op == MAXIMUM or op == MAXIMUM_CONSTANT:
        return x if taken(op, x, y) else y
    return rare_value(op, x, y)


@cython.cdivision(True)
cdef inline double partial_a(uint8_t op, double x, double y, double result) noexcept nogil:
    """Return d(result)/dx of a scalar op."""
    if op == EXP:
        return result
    elif op == LOG:
        return 1.0 / x
    elif op == RELU:
        return relu_partial(x)
    elif op == TANH:
        return tanh_partial(result)
    elif op == SIGMOID:
        return sigmoid_partial(x)
    elif op == SQRT:
        return 0.5 / result
    elif op == SIN:
        return cos(x)
    elif op == COS:
        return -sin(x)
    elif op == ABS:
        return abs_partial(x)
    elif op == ADD or op == ADD_CONSTANT:
        return 1.0
    elif op == MUL or op == MUL_CONSTANT:
        return y
    elif op == POW or op == POW_CONSTANT:
        return pow_partial(x, y)
    elif op == CONSTANT_POW:
        return exponent_partial(y, result)
    elif op == MINIMUM or op == MINIMUM_CONSTANT or op == MAXIMUM or op == MAXIMUM_CONSTANT:
        return taken_partial(op, x, y)
    return rare_partial_a(op, x, y, result)


cdef inline double partial_b(uint8_t op, double x, double y, double result) noexcept nogil:
    """Return d(result)/dy of an op with two operands."""
    if op == ADD:
        return 1.0
    elif op == MUL:
        return x
    elif op == POW:
        return exponent_partial(x, result)
    elif op == MINIMUM or op == MAXIMUM:
        return taken_partial(op, y, x)
    return rare_partial_b(op, x, y, result)


cdef inline bint reads_operands(uint8_t op) noexcept nogil:
    """Whether a partial of the op depends on the data of its operands, not just on a constant or the result."""
    return op not in (EXP, TANH, SQRT, FLOOR, WHERE, ADD, ADD_CONSTANT, MUL_CONSTANT, CONSTANT_POW, SUM, SUM_LISTED, CUSTOM)


cdef inline void propagate(Tape *t, uint32_t i, uint32_t low, uint32_t high) noexcept nogil:
    """Add partial * grad of node `i` to the grad of each operand, of those numbered [low, high) where there are many."""
    cdef Node room
    cdef const Node *node = look_at(t, i, &room)
    cdef uint8_t op = <uint8_t>node.op
    cdef double *data = t.data
    cdef double *grad = t.grad
    cdef double g = grad[i]
    cdef uint32_t a = node.a
    cdef uint32_t b, k, stride
    cdef uint32_t *listed
    cdef double *local_grad
    if op <= LAST_UNARY:
        grad[a] += partial_a(op, data[a], node.argument.constant, data[i]) * g
        return
    b = node.argument.pair.b
    if op <= LAST_BINARY:
        grad[a] += partial_a(op, data[a], data[b], data[i]) * g
        grad[b] += partial_b(op, data[a], data[b], data[i]) * g
    elif op == SUM:
        for k in range(a + low, a + high):
            grad[k] += g
    elif op == DOT:
        if a + high <= b + low or b + high <= a + low or FAULT(b"dot: spans are apart"):
            dot_partials(&grad[a + low], &grad[b + low], &data[a + low], &data[b + low], g, high - low)
        else:   # overlapping spans: the last product first, as the reference's chain of sums unrolls
            for k in range(high, low, -1):
                grad[a + k - 1] += data[b + k - 1] * g
                grad[b + k - 1] += data[a + k - 1] * g
    elif op == SUM_LISTED:
        listed = &t.pool[a]
        for k in range(high, low, -1):
            grad[listed[k - 1]] += g
    elif op == DOT_LISTED:
        propagate_pairs(t, &t.pool[a], g, low, high)
    elif op == DOT_STRIDED:
        stride = stride_at(t, i)
        for k in range(high, low, -1):
            grad[a + k - 1] += data[b + (k - 1) * stride] * g
            grad[b + (k - 1) * stride] += data[a + k - 1] * g
    elif op == CUSTOM:
        listed = &t.pool[a]
        local_grad = partials(t, a, node.argument.pair.n)
        for k in range(low, high):
            grad[listed[k]] += local_grad[k] * g


cdef inline void propagate_pairs(Tape *t, const uint32_t *listed, double g, uint32_t low, uint32_t high) noexcept nogil:
    cdef uint32_t k
    for k in range(high, low, -1):
        t.grad[listed[2 * k - 2]] += t.data[listed[2 * k - 1]] * g
        t.grad[listed[2 * k - 1]] += t.data[listed[2 * k - 2]] * g


cdef inline bint apart(uint32_t a, uint32_t n, uint32_t b, uint32_t m) noexcept nogil:
    """Whether [a, a + n) and [b, b + m) have nothing in common."""
    return a + n <= b or b + m <= a


cdef inline void propagate_run(Tape *t, uint32_t first, uint32_t n) noexcept nogil:
    """As `propagate`, for the nodes [first, first + n) from the last to the first: n >= 2, of one op, their operands
    each the same step further.
    """
    cdef Node node
    cdef Steps steps = look_at_run(t, first, n, &node)
    cdef uint8_t op = <uint8_t>node.op
    cdef double *data = t.data
    cdef double *grad = t.grad
    cdef const double *g = &t.grad[first]
    cdef uint32_t a = node.a
    cdef uint32_t b = node.argument.pair.b
    cdef uint32_t step_a = steps.step_a
    cdef uint32_t step_b = steps.step_b
    cdef uint32_t length = node.argument.pair.n
    cdef double k = node.argument.constant
    cdef double total, local_grad
    cdef uint32_t i
    if op == DOT:
        if step_a == length and step_b == 0 and (apart(a, n * length, b, length) or FAULT(b"run of a product: apart")):
            chosen.dot_rows_partials(&grad[a], &grad[b], &data[a], &data[b], g, n, length)
            return
        if step_a == length and step_b == length and (
                apart(a, n * length, b, n * length) or FAULT(b"run of dots: apart")):
            for i in range(n):
                dot_partials(&grad[a], &grad[b], &data[a], &data[b], g[i], length)
                a += length
                b += length
            return
    elif op == DOT_LISTED:
        for i in range(n, 0, -1):
            propagate_pairs(t, &t.pool[record_at(t, first + i - 1).a], g[i - 1], 0, length)
        return
    elif op <= LAST_UNARY:
        if step_a == 1:
            unary_partials(op, &grad[a], &data[a], &data[first], k, g, n)
            return
        if step_a == 0:                                         # the nodes are equal
            local_grad = partial_a(op, data[a], k, data[first])
            total = grad[a]
            for i in range(n, 0, -1):
                total += local_grad * g[i - 1]
            grad[a] = total
            return
        for i in range(n):
            grad[a + i * step_a] += partial_a(op, data[a + i * step_a], k, data[first + i]) * g[i]
        return
    elif step_a == 1 and op == ADD and step_b == 1 and (apart(a, n, b, n) or FAULT(b"run of sums: apart")):
        for i in range(n):
            grad[a + i] += g[i]
        for i in range(n):
            grad[b + i] += g[i]
        return
    elif step_a == 1 and op == MUL and step_b == 0 and (apart(a, n, b, 1) or FAULT(b"run times one: apart")):
        total = grad[b]
        for i in range(n, 0, -1):
            total += data[a + i - 1] * g[i - 1]
        grad[b] = total
        for i in range(n):
            grad[a + i] += data[b] * g[i]
        return
    elif step_a == 1 and op == MUL and step_b == 1 and (apart(a, n, b, n) or FAULT(b"run of products: apart")):
        for i in range(n):
            grad[a + i] += data[b + i] * g[i]
        for i in range(n):
            grad[b + i] += data[a + i] * g[i]
        return
    for i in range(n, 0, -1):
        propagate(t, first + i - 1, 0, length)


cdef inline void unary_partials(uint8_t op, double *grad, const double *data, const double *result, double k, const double *g,
                                uint32_t n) noexcept nogil:
    cdef uint32_t i
    if op == RELU:
        relu_partials(grad, data, g, n)
    elif op == ADD_CONSTANT:
        for i in range(n):
            grad[i] += g[i]
    elif op == MUL_CONSTANT:
        for i in range(n):
            grad[i] += k * g[i]
    elif op == EXP:
        for i in range(n):
            grad[i] += result[i] * g[i]
    elif op == POW_CONSTANT and k == 2.0:
        for i in range(n):
            grad[i] += 2.0 * data[i] * g[i]
    else:
        for i in range(n):
            grad[i] += partial_a(op, data[i], k, result[i]) * g[i]
