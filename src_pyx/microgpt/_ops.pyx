"""Names, edges and Python views of the ops declared in _ops.pxd."""

from microgpt._tape cimport (
    ACOS, ASIN, ATAN, ATAN2, ATAN2_CONSTANT, CONSTANT_ATAN2, COSH, CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, ERF, EXPM1, FLOOR, GELU,
    LAST_BINARY, LAST_UNARY, LEAF, LGAMMA, LOG1P, LOG2, LOG10, SILU, SINH, SOFTPLUS, SUM, SUM_LISTED, WHERE, Node, Tape, node_at,
    partials, stride_at
)

from math import hypot, lgamma

# In the order of the enum Op: the name that users see.
NAMES = (
    "leaf", "exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "abs",
    "atan", "asin", "acos", "sinh", "cosh", "log1p", "expm1", "log2", "log10", "erf", "lgamma", "gelu", "silu", "softplus",
    "floor", "where",
    "add", "mul", "pow", "pow", "minimum", "maximum", "atan2", "atan2", "hypot",
    "add", "mul", "pow", "minimum", "maximum", "atan2", "hypot",
    "sum", "dot", "sum", "dot", "dot", "custom",
)


cdef str name_of(uint8_t op):
    return NAMES[op]


cdef double domain_error(str op, str allowed, double x) except? -1.0 with gil:
    raise ValueError(f"{op} needs {allowed}, got {x!r}")


cdef double overflow_error(str op, double x) except? -1.0 with gil:
    raise OverflowError(f"{op} of {x!r} is too large for a float")


cdef double pow_at_edge(double x, double k) except? -1.0 with gil:
    """Return x ** k where value or partial may be special: Python's own float arithmetic decides, as in the reference."""
    cdef object base = x
    cdef object exponent = k
    if x < 0.0 and isfinite(x) and isfinite(k) and exponent % 1.0 != 0.0:
        raise ValueError(f"pow needs data >= 0 for the fractional exponent {k!r}, got {x!r}")
    try:
        value = base ** exponent
        exponent * base ** (exponent - 1.0)
    except ZeroDivisionError:
        raise ZeroDivisionError(f"pow needs data other than 0 for an exponent below 1, got {x!r} ** {k!r}") from None
    except OverflowError:
        raise OverflowError(f"{x!r} ** {k!r} or its derivative is too large for a float") from None
    return value


cdef double pow_of_values(double x, double y) except? -1.0 with gil:
    if x < 0.0:
        raise ValueError(f"pow with a Value as exponent needs a base >= 0, got {x!r}")
    return pow_value(x, y)


# Python computes these two by formulas of its own, not by the C library's functions.

cdef double lgamma_value(double x) except? -1.0 with gil:
    if x <= 0.0 and x == floor(x):      # so is -inf
        return domain_error("lgamma", "data above 0, or between two whole numbers", x)
    try:
        return lgamma(x)
    except OverflowError:
        return overflow_error("lgamma", x)


cdef double hypot_value(double x, double y) except? -1.0 with gil:
    cdef double result = hypot(x, y)
    if result == INFINITY and fabs(x) != INFINITY and fabs(y) != INFINITY:
        raise OverflowError(f"hypot of {x!r} and {y!r} is too large for a float")
    return result


cdef double atan2_error() except? -1.0 with gil:
    raise ValueError("atan2 needs another point than the origin, got y = 0 and x = 0")


# What `evaluate`, `partial_a` and `partial_b` leave out. Those are compiled into loops over nodes, which are fast while small.

cdef double rare_value(uint8_t op, double x, double y) except? -1.0 nogil:
    if op == ATAN:
        return atan(x)
    elif op == ASIN:
        return asin_value(x)
    elif op == ACOS:
        return acos_value(x)
    elif op == SINH:
        return sinh_value(x)
    elif op == COSH:
        return cosh_value(x)
    elif op == LOG1P:
        return log1p_value(x)
    elif op == EXPM1:
        return expm1_value(x)
    elif op == LOG2:
        return log2_value(x)
    elif op == LOG10:
        return log10_value(x)
    elif op == ERF:
        return erf(x)
    elif op == LGAMMA:
        return lgamma_value(x)
    elif op == GELU:
        return gelu_value(x)
    elif op == SILU:
        return silu_value(x)
    elif op == SOFTPLUS:
        return softplus_value(x)
    elif op == FLOOR:
        return floor(x)
    elif op == WHERE:
        return x
    elif op == ATAN2 or op == ATAN2_CONSTANT:
        return atan2_value(x, y)
    elif op == CONSTANT_ATAN2:
        return atan2_value(y, x)
    return hypot_value(x, y)


cdef double rare_partial_a(uint8_t op, double x, double y, double result) noexcept nogil:
    if op == ATAN:
        return atan_partial(x)
    elif op == ASIN:
        return asin_partial(x)
    elif op == ACOS:
        return -asin_partial(x)
    elif op == SINH:
        return cosh(x)
    elif op == COSH:
        return sinh(x)
    elif op == LOG1P:
        return log1p_partial(x)
    elif op == EXPM1:
        return exp(x)
    elif op == LOG2:
        return log2_partial(x)
    elif op == LOG10:
        return log10_partial(x)
    elif op == ERF:
        return erf_partial(x)
    elif op == LGAMMA:
        return digamma(x)
    elif op == GELU:
        return gelu_partial(x)
    elif op == SILU:
        return silu_partial(x)
    elif op == SOFTPLUS:
        return sigmoid_value(x)
    elif op == FLOOR:
        return 0.0
    elif op == WHERE:
        return 1.0
    elif op == ATAN2 or op == ATAN2_CONSTANT:
        return over_square_sum(y, x)
    elif op == CONSTANT_ATAN2:
        return -over_square_sum(y, x)
    return hypot_partial(x, result)


cdef double rare_partial_b(uint8_t op, double x, double y, double result) noexcept nogil:
    if op == ATAN2:
        return -over_square_sum(x, y)
    return hypot_partial(y, result)


cdef uint32_t operand_count(Tape *t, uint32_t i) noexcept:
    """Return the number of operands of node `i`."""
    cdef Node node = node_at(t, i)
    if node.op <= LAST_BINARY:
        return 0 if node.op == LEAF else 1 if node.op <= LAST_UNARY else 2
    if node.op == DOT or node.op == DOT_LISTED or node.op == DOT_STRIDED:
        return 2 * node.argument.pair.n
    return node.argument.pair.n


cdef uint32_t operand(Tape *t, uint32_t i, uint32_t k) noexcept:
    """Return the id of operand `k` of node `i`, in constructor order."""
    cdef Node node = node_at(t, i)
    if node.op <= LAST_BINARY:
        return node.a if k == 0 else node.argument.pair.b
    if node.op == SUM:
        return node.a + k
    if node.op == DOT:
        return (node.argument.pair.b if k & 1 else node.a) + k // 2
    if node.op == DOT_STRIDED:
        return node.argument.pair.b + k // 2 * stride_at(t, i) if k & 1 else node.a + k // 2
    return t.pool[node.a + k]


cdef double partial(Tape *t, uint32_t i, uint32_t k) noexcept:
    """Return the derivative of node `i` by its operand `k`."""
    cdef Node node = node_at(t, i)
    cdef uint8_t op = <uint8_t>node.op
    cdef uint32_t a = node.a
    cdef uint32_t b = node.argument.pair.b
    if op <= LAST_UNARY:
        return partial_a(op, t.data[a], node.argument.constant, t.data[i])
    if op <= LAST_BINARY:
        if k == 0:
            return partial_a(op, t.data[a], t.data[b], t.data[i])
        return partial_b(op, t.data[a], t.data[b], t.data[i])
    if op == CUSTOM:
        return partials(t, a, node.argument.pair.n)[k]
    return 1.0 if op == SUM or op == SUM_LISTED else t.data[operand(t, i, k ^ 1)]
