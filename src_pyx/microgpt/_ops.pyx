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


cdef tuple children_of(Tape *t, uint32_t i):
    """Return the ids of the operands of node `i`, in constructor order."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t a = t.node[i].a
    cdef uint32_t b, n, k
    if op == LEAF:
        return ()
    if op <= LAST_UNARY:
        return (a,)
    b = t.node[i].argument.pair.b
    n = t.node[i].argument.pair.n
    if op <= LAST_BINARY:
        return (a, b)
    if op == SUM:
        return tuple(range(a, a + n))
    if op == DOT:
        return tuple([c for k in range(n) for c in (a + k, b + k)])
    if op == DOT_LISTED:
        n *= 2
    return tuple([t.pool[a + k] for k in range(n)])


cdef tuple local_grads_of(Tape *t, uint32_t i):
    """Return the partials of node `i`, one for each of its operands."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t a = t.node[i].a
    cdef uint32_t b, n, k
    cdef tuple ids
    if op == LEAF:
        return ()
    if op <= LAST_UNARY:
        return (partial_a(op, t.data[a], t.node[i].argument.constant, t.data[i]),)
    b = t.node[i].argument.pair.b
    n = t.node[i].argument.pair.n
    if op <= LAST_BINARY:
        return (partial_a(op, t.data[a], t.data[b], t.data[i]), partial_b(op, t.data[a], t.data[b], t.data[i]))
    if op == SUM or op == SUM_LISTED:
        return (1.0,) * n
    if op == CUSTOM:
        return tuple([partials(t, a, n)[k] for k in range(n)])
    ids = children_of(t, i)
    return tuple([t.data[<uint32_t>ids[k ^ 1]] for k in range(2 * n)])
