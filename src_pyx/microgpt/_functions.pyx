"""Functions of Values, Vectors and lists of Values. The composites emit scalar nodes in a compiled loop.

Which nodes, and in which order their operands come, is the reference's.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport pow
from libc.stdint cimport uint8_t, uint32_t

from microgpt._ops cimport evaluate
from microgpt._runs cimport (
    Operands, at, part, put_constant_run, put_dot, put_dots, put_mixture, put_pair_run, put_sum, put_unary_run, run, same
)
from microgpt._tape cimport (
    ADD_CONSTANT, BLOCK_END, COS, EXP, LOG, MAXIMUM, MAXIMUM_CONSTANT, MINIMUM, MINIMUM_CONSTANT, MUL, MUL_CONSTANT,
    POW_CONSTANT, RELU, SIGMOID, SIN, SQRT, TANH, anchor, put_constant, put_pair, reserve, reserve_listed, tape
)
from microgpt._value cimport Value, as_number, binary, constant, new_value
from microgpt._vector cimport Vector, apply, as_vector, elements, new_vector, settle


def exp(x):
    """Return e ** x. OverflowError above 709.78."""
    return apply(EXP, x)


def log(x):
    """Return the natural logarithm. ValueError unless x > 0."""
    return apply(LOG, x)


def relu(x):
    """Return max(0, x)."""
    return apply(RELU, x)


def tanh(x):
    """Return the hyperbolic tangent."""
    return apply(TANH, x)


def sigmoid(x):
    """Return 1 / (1 + exp(-x)), without overflow on either side."""
    return apply(SIGMOID, x)


def sqrt(x):
    """Return the square root. ValueError unless x > 0."""
    return apply(SQRT, x)


def sin(x):
    """Return the sine of x radians. ValueError if x is infinite."""
    return apply(SIN, x)


def cos(x):
    """Return the cosine of x radians. ValueError if x is infinite."""
    return apply(COS, x)


def minimum(x, y):
    """Return the smaller of a Value and a Value or number. nan loses against a number; a tie shares the gradient equally."""
    return choose(MINIMUM, MINIMUM_CONSTANT, x, y)


def maximum(x, y):
    """Return the larger of a Value and a Value or number. nan and ties as in `minimum`."""
    return choose(MAXIMUM, MAXIMUM_CONSTANT, x, y)


cdef Value choose(int of_values, int of_constant, object x, object y):
    if not isinstance(x, Value):
        x, y = y, x
    if not isinstance(x, Value):
        raise TypeError(f"minimum and maximum need at least one Value, got {type(y).__name__} and {type(x).__name__}")
    if isinstance(y, Value):
        return binary(of_values, <Value>x, <Value>y)
    return constant(of_constant, <Value>x, as_number(y, "minimum or maximum"))


cdef inline uint32_t put_with_constant(uint8_t op, uint32_t x, double k) except 0:
    return put_constant(tape, op, x, k, evaluate(op, tape.data[x], k))


cdef uint32_t put_exponentials(Operands z, uint32_t n, uint32_t sets) except 0:
    """exp(z - max z) for each of n logits; the maximum is a plain number, as in the reference. Room: 2 * n * sets.

    Of several sets of logits, in a run: those of the first are numbers 0, sets, 2 * sets, ... The results are set after set.
    """
    cdef uint32_t start = tape.top
    cdef Operands of_set
    cdef double top
    cdef uint32_t i, k
    for k in range(sets):
        of_set = part(z, k)
        of_set.step *= sets
        top = tape.data[at(of_set, 0)]
        for i in range(1, n):
            if tape.data[at(of_set, i)] > top:
                top = tape.data[at(of_set, i)]
        put_constant_run(ADD_CONSTANT, of_set, n, -top)
    return put_unary_run(EXP, run(start), n * sets)


cdef uint32_t put_softmax(Operands z, uint32_t n, uint32_t sets) except 0:
    """Several sets of logits as `put_exponentials`. Room: (4 * n + 1) * sets. Each element has its own power node, which decides
    the last bit of the gradient.
    """
    cdef uint32_t e = put_exponentials(z, n, sets)
    cdef uint32_t total = tape.top
    cdef uint32_t power, k
    for k in range(sets):
        put_sum(run(e + k * n), n)
    power = tape.top
    for k in range(sets):
        put_constant_run(POW_CONSTANT, same(total + k), n, -1.0)
    return put_pair_run(MUL, run(e), run(power), n * sets)


def softmax(logits):
    """Return exp(logits) / sum(exp(logits)), the maximum subtracted first.

    Shape: [n] -> [n].
    Source: microgpt.py; each quotient e / total is e * total**-1, as there.
    """
    cdef Vector z = as_vector(logits)
    cdef Vector result = new_vector()
    reserve(tape, 4 * <size_t>z.n + 1)
    settle(result, put_softmax(elements(z, 0), z.n, 1), z.n)
    return result


def rmsnorm(x):
    """Scale `x` to unit root mean square.

    Shape: [n] -> [n], n >= 1. No learned gain.
    Source: Zhang & Sennrich 2019, without gain; 1e-5 inside the root as in microgpt.py.
    """
    cdef Vector v = as_vector(x)
    cdef Vector result = new_vector()
    cdef Operands given
    cdef uint32_t scale
    reserve(tape, <size_t>v.n + 4)
    reserve_listed(tape, 2 * <size_t>v.n + BLOCK_END)
    given = elements(v, 0)
    scale = put_dot(given, given, v.n)
    scale = put_with_constant(MUL_CONSTANT, scale, pow(v.n, -1.0))
    scale = put_with_constant(ADD_CONSTANT, scale, 1e-5)
    scale = put_with_constant(POW_CONSTANT, scale, -0.5)
    settle(result, put_pair_run(MUL, given, same(scale), v.n), v.n)
    return result


def cross_entropy(logits, Py_ssize_t target):
    """Return -log softmax(logits)[target], in nats. Only the nodes that the result needs are made.

    Shape: [n], 0 <= target < n -> scalar.
    Errors: TypeError unless target is a whole number; IndexError for one outside; ValueError where the probability underflows
    to 0, as log raises it.
    """
    cdef Vector z = as_vector(logits)
    cdef Value result = new_value()
    cdef uint32_t e, p, i
    if not 0 <= target < z.n:
        raise IndexError(f"cross_entropy needs 0 <= target < {z.n}, got {target}")
    i = <uint32_t>target
    reserve(tape, 2 * <size_t>z.n + 5)
    e = put_exponentials(elements(z, 0), z.n, 1)
    p = put_with_constant(POW_CONSTANT, put_sum(run(e), z.n), -1.0)
    p = put_pair(tape, MUL, e + i, p, 0, tape.data[e + i] * tape.data[p])
    p = put_with_constant(LOG, p, 0.0)
    anchor(result, put_with_constant(MUL_CONSTANT, p, -1.0))
    return result


def attention(query, keys, values, Py_ssize_t n_head):
    """Return the values, weighted head by head by softmax(query . key / sqrt(head_dim)).

    Shape: query [n], keys and values [time][n], n_head a divisor of n -> [n], heads one after the other.
    Errors: ValueError unless keys and values are as many, at least one, and all of length n.
    Source: Vaswani et al. 2017, one query at a time.
    """
    cdef Vector q = as_vector(query)
    cdef Vector result = new_vector()
    cdef list k = vectors_of(keys, q.n)
    cdef list v = vectors_of(values, q.n)
    cdef size_t time = len(k)
    cdef uint32_t head_dim
    if not 0 < n_head <= q.n or q.n % n_head:
        raise ValueError(f"attention needs n_head to divide {q.n}, got {n_head}")
    if time == 0 or time != <size_t>len(v):
        raise ValueError(f"attention needs as many keys as values and at least one, got {time} and {len(v)}")
    head_dim = q.n // <uint32_t>n_head
    reserve(tape, n_head * (6 * time + 1) + q.n)
    if any_listed(q, k):
        reserve_listed(tape, q.n * (2 * time + BLOCK_END) + n_head * time * (2 * head_dim + BLOCK_END))
    else:
        reserve_listed(tape, q.n * (2 * time + BLOCK_END))
    put_attention(result, q, k, v, <uint32_t>n_head, head_dim)
    return result


cdef list vectors_of(object given, uint32_t n):
    """Return keys or values as a new list of Vectors of length `n`: the caller's own may change while one is made."""
    cdef list vectors = list(given)
    cdef Py_ssize_t i
    for i in range(len(vectors)):
        vectors[i] = as_vector_of(n, vectors[i])
    return vectors


cdef bint any_listed(Vector query, list keys):
    """Whether the dots of query and keys list their operands."""
    cdef Vector key
    for key in keys:
        if key.listed != NULL:
            return True
    return query.listed != NULL


cdef Vector as_vector_of(uint32_t n, object x):
    cdef Vector v = as_vector(x)
    if v.n != n:
        raise ValueError(f"attention needs keys and values of the query's length {n}, got {v.n}")
    return v


cdef int put_attention(Vector result, Vector q, list keys, list values, uint32_t n_head, uint32_t head_dim) except -1:
    cdef uint32_t time = <uint32_t>len(keys)
    cdef uint32_t scores = tape.top
    cdef uint32_t weights, start, j, t
    cdef Vector vector
    cdef bint runs = True
    cdef uint32_t *column = <uint32_t *>PyMem_Malloc(time * sizeof(uint32_t))   # freed below
    if column == NULL:
        raise MemoryError(f"no room for attention over {time} positions")
    try:
        for vector in keys:                     # key by key, a score for each head
            put_dots(elements(q, 0), elements(vector, 0), head_dim, n_head)
        scores = put_constant_run(MUL_CONSTANT, run(scores), n_head * time, pow(pow(head_dim, 0.5), -1.0))
        weights = put_softmax(run(scores), time, n_head)
        start = tape.top
        for t in range(time):
            vector = values[t]
            column[t] = vector.start
            runs &= vector.listed == NULL
        if runs:
            put_mixture(weights, column, time, q.n, head_dim)
        else:
            for j in range(q.n):
                for t in range(time):
                    vector = values[t]
                    column[t] = at(elements(vector, j), 0)
                put_dot(run(weights + j // head_dim * time), Operands(0, 0, column), time)
    finally:
        PyMem_Free(column)
    settle(result, start, q.n)
    return 0
