"""Second derivatives of the ops, for products with the Hessian. Where a first derivative jumps, they are 0.

microgpt.reference has none that they could be equal to. The tests compare them with differences of first derivatives.
"""

cimport cython
from libc.math cimport exp, fabs, floor, log, pow, sin

from microgpt._ops cimport (
    asin_partial, atan_partial, erf_partial, log1p_partial, over_square_sum, sigmoid_partial
)
from microgpt._tape cimport (
    ACOS, ASIN, ATAN, ATAN2, ATAN2_CONSTANT, CONSTANT_ATAN2, CONSTANT_POW, COS, COSH, ERF, EXP, EXPM1, GELU, HYPOT,
    HYPOT_CONSTANT, LGAMMA, LOG, LOG1P, LOG2, LOG10, POW, POW_CONSTANT, SIGMOID, SILU, SIN, SINH, SOFTPLUS, SQRT, TANH
)


@cython.cdivision(True)
cdef double trigamma(double x) noexcept nogil:
    """The derivative of digamma, as that is computed: recurrence up to 10, asymptotic series, below 0 by reflection."""
    cdef double result = 0.0
    cdef double r, sine
    if x < 0.0:
        sine = sin(3.141592653589793 * (x - floor(x + 0.5)))
        return 9.869604401089358 / (sine * sine) - trigamma(1.0 - x)
    while x < 10.0:
        result += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    return result + 1.0 / x + 0.5 * r + r / x * (1.0 / 6.0 - r * (1.0 / 30.0 - r * (1.0 / 42.0 - r * (1.0 / 30.0 - r * (
        5.0 / 66.0 - r * (691.0 / 2730.0 - r * (7.0 / 6.0)))))))


@cython.cdivision(True)
cdef double sigmoid_second(double x) noexcept nogil:
    cdef double e = exp(-fabs(x))
    return sigmoid_partial(x) * ((e - 1.0) / (1.0 + e) if x >= 0.0 else (1.0 - e) / (1.0 + e))


@cython.cdivision(True)
cdef double of_power(uint32_t which, double x, double y, double result) noexcept nogil:
    """x ** y: by x twice, by both, by y twice. Where x is 0, partials by y are 0."""
    if which == 0:
        return 0.0 if y == 0.0 or y == 1.0 else y * (y - 1.0) * pow(x, y - 2.0)
    if x <= 0.0:
        return 0.0
    if which == 1:
        return pow(x, y - 1.0) * (1.0 + y * log(x))
    return result * log(x) * log(x)


@cython.cdivision(True)
cdef double of_hypot(uint32_t which, double x, double y, double result) noexcept nogil:
    if result == 0.0:
        return 0.0
    if which == 1:
        return -(x / result) * (y / result) / result
    return (y / result) * (y / result) / result if which == 0 else (x / result) * (x / result) / result


cdef double of_atan2(uint32_t which, double y, double x) noexcept nogil:
    cdef double by_y = over_square_sum(x, y)
    cdef double by_x = -over_square_sum(y, x)
    if which == 1:
        return by_x * by_x - by_y * by_y
    return 2.0 * by_y * by_x if which == 0 else -2.0 * by_y * by_x


@cython.cdivision(True)
cdef double second(uint32_t which, uint32_t op, double x, double y, double result) noexcept nogil:
    """Return the derivative of an op by x twice (0), by x and y (1), by y twice (2); `y` is the number of an op that has one."""
    cdef double p
    if op == EXP or op == SINH or op == COSH:
        return result
    elif op == LOG:
        return -1.0 / (x * x)
    elif op == TANH:
        return -2.0 * result * (1.0 - result * result)
    elif op == SIGMOID:
        return sigmoid_second(x)
    elif op == SQRT:
        return -0.25 / (x * result)
    elif op == SIN or op == COS:
        return -result
    elif op == ATAN:
        p = atan_partial(x)
        return -2.0 * x * p * p
    elif op == ASIN or op == ACOS:
        p = asin_partial(x)
        return x * p * p * p if op == ASIN else -x * p * p * p
    elif op == LOG1P:
        p = log1p_partial(x)
        return -p * p
    elif op == EXPM1:
        return exp(x)
    elif op == LOG2:
        return -1.4426950408889634 / (x * x)
    elif op == LOG10:
        return -0.4342944819032518 / (x * x)
    elif op == ERF:
        return -2.0 * x * erf_partial(x)
    elif op == LGAMMA:
        return trigamma(x)
    elif op == GELU:
        return 0.3989422804014327 * exp(-0.5 * x * x) * (2.0 - x * x)
    elif op == SILU:
        return 2.0 * sigmoid_partial(x) + x * sigmoid_second(x)
    elif op == SOFTPLUS:
        return sigmoid_partial(x)
    elif op == POW_CONSTANT or op == POW:
        return of_power(which, x, y, result)
    elif op == CONSTANT_POW:
        return of_power(2, y, x, result)
    elif op == ATAN2 or op == ATAN2_CONSTANT:
        return of_atan2(which, x, y)
    elif op == CONSTANT_ATAN2:
        return of_atan2(2, y, x)
    elif op == HYPOT or op == HYPOT_CONSTANT:
        return of_hypot(which, x, y, result)
    return 0.0
