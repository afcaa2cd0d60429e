"""Names, edges and Python views of the ops declared in _ops.pxd."""

from microgpt._tape cimport CUSTOM, DOT, DOT_LISTED, LAST_BINARY, LAST_UNARY, LEAF, SUM, SUM_LISTED, Tape, partials

# In the order of the enum Op: the name that users see.
NAMES = (
    "leaf", "exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "abs",
    "add", "mul", "pow", "pow", "minimum", "maximum",
    "add", "mul", "pow", "minimum", "maximum",
    "sum", "dot", "sum", "dot", "custom",
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


cdef uint32_t operand_count(Tape *t, uint32_t i) noexcept:
    """Return the number of operands of node `i`."""
    cdef uint8_t op = t.node[i].op
    if op <= LAST_BINARY:
        return 0 if op == LEAF else 1 if op <= LAST_UNARY else 2
    if op == DOT or op == DOT_LISTED:
        return 2 * t.node[i].argument.pair.n
    return t.node[i].argument.pair.n


cdef uint32_t operand(Tape *t, uint32_t i, uint32_t k) noexcept:
    """Return the id of operand `k` of node `i`, in constructor order."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t a = t.node[i].a
    if op <= LAST_BINARY:
        return a if k == 0 else t.node[i].argument.pair.b
    if op == SUM:
        return a + k
    if op == DOT:
        return (t.node[i].argument.pair.b if k & 1 else a) + k // 2
    return t.pool[a + k]


cdef double partial(Tape *t, uint32_t i, uint32_t k) noexcept:
    """Return the derivative of node `i` by its operand `k`."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t a = t.node[i].a
    cdef uint32_t b = t.node[i].argument.pair.b
    if op <= LAST_UNARY:
        return partial_a(op, t.data[a], t.node[i].argument.constant, t.data[i])
    if op <= LAST_BINARY:
        if k == 0:
            return partial_a(op, t.data[a], t.data[b], t.data[i])
        return partial_b(op, t.data[a], t.data[b], t.data[i])
    if op == CUSTOM:
        return partials(t, a, t.node[i].argument.pair.n)[k]
    return 1.0 if op == SUM or op == SUM_LISTED else t.data[operand(t, i, k ^ 1)]
