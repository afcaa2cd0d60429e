"""Functions of Values, Vectors, lists of Values and Rows. The composites emit scalar nodes in a compiled loop.

Which nodes, and in which order their operands come, is the reference's.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport pow
from libc.stdint cimport UINT32_MAX, uint32_t

from microgpt._matrix cimport Matrix, Rows, apply_to_any, as_rows, each_row, new_rows, rows_of
from microgpt._no_grad cimport finish
from microgpt._runs cimport (
    Operands, Positions, at, part, put_constant_run, put_dots, put_mixture, put_pair_run, put_scores, put_sum, put_unary_run, run,
    same
)
from microgpt._tape cimport (
    ACOS, ADD_CONSTANT, ASIN, ATAN, ATAN2, ATAN2_CONSTANT, BLOCK_END, CONSTANT_ATAN2, COS, COSH, ERF, EXP, EXPM1, FLOOR, GELU,
    HYPOT, HYPOT_CONSTANT, LGAMMA, LOG, LOG1P, LOG2, LOG10, MAXIMUM, MAXIMUM_CONSTANT, MINIMUM, MINIMUM_CONSTANT, MUL,
    MUL_CONSTANT, POW_CONSTANT, RELU, SIGMOID, SILU, SIN, SINH, SOFTPLUS, SQRT, TANH, WHERE, Handle, anchor,
    note_shift, put_pair, reserve, reserve_listed, tape
)
from microgpt._value cimport Value, as_number, binary, constant, new_value, number, unary
from microgpt._vector cimport Vector, apply, as_vector, as_whole, elements, new_vector, settle_result


def exp(x):
    """Return e ** x. OverflowError above 709.78."""
    return apply_to_any(EXP, x)


def log(x):
    """Return the natural logarithm. ValueError unless x > 0."""
    return apply_to_any(LOG, x)


def relu(x):
    """Return max(0, x)."""
    return apply_to_any(RELU, x)


def tanh(x):
    """Return the hyperbolic tangent."""
    return apply_to_any(TANH, x)


def sigmoid(x):
    """Return 1 / (1 + exp(-x)), without overflow on either side."""
    return apply_to_any(SIGMOID, x)


def sqrt(x):
    """Return the square root. ValueError unless x > 0."""
    return apply_to_any(SQRT, x)


def sin(x):
    """Return the sine of x radians. ValueError if x is infinite."""
    return apply_to_any(SIN, x)


def cos(x):
    """Return the cosine of x radians. ValueError if x is infinite."""
    return apply_to_any(COS, x)


def atan(x):
    """Return the arc tangent in radians."""
    return apply_to_any(ATAN, x)


def asin(x):
    """Return the arc sine in radians. ValueError unless -1 < x < 1."""
    return apply_to_any(ASIN, x)


def acos(x):
    """Return the arc cosine in radians. ValueError unless -1 < x < 1."""
    return apply_to_any(ACOS, x)


def sinh(x):
    """Return the hyperbolic sine. OverflowError beyond 710.47 on either side."""
    return apply_to_any(SINH, x)


def cosh(x):
    """Return the hyperbolic cosine. OverflowError beyond 710.47 on either side."""
    return apply_to_any(COSH, x)


def log1p(x):
    """Return log(1 + x), exact next to 0. ValueError unless x > -1."""
    return apply_to_any(LOG1P, x)


def expm1(x):
    """Return exp(x) - 1, exact next to 0. OverflowError above 709.78."""
    return apply_to_any(EXPM1, x)


def log2(x):
    """Return the logarithm to base 2. ValueError unless x > 0."""
    return apply_to_any(LOG2, x)


def log10(x):
    """Return the logarithm to base 10. ValueError unless x > 0."""
    return apply_to_any(LOG10, x)


def erf(x):
    """Return the error function."""
    return apply_to_any(ERF, x)


def lgamma(x):
    """Return log(|gamma(x)|). ValueError at 0, -1, -2, ...; OverflowError above 2.559e305."""
    return apply_to_any(LGAMMA, x)


def gelu(x):
    """Return x * Phi(x), Phi the normal distribution: the form with erf, not that with tanh.

    Source: Hendrycks & Gimpel 2016.
    """
    return apply_to_any(GELU, x)


def silu(x):
    """Return x * sigmoid(x), also known as swish."""
    return apply_to_any(SILU, x)


def softplus(x):
    """Return log(1 + exp(x)), without overflow on either side."""
    return apply_to_any(SOFTPLUS, x)


def floor(x):
    """Return the largest whole number that is not above x. Its gradient is 0."""
    return apply_to_any(FLOOR, x)


def minimum(x, y):
    """Return the smaller of a Value and a Value or number. nan loses against a number; a tie shares the gradient equally."""
    return of_two("minimum", MINIMUM, MINIMUM_CONSTANT, MINIMUM_CONSTANT, x, y)


def maximum(x, y):
    """Return the larger of a Value and a Value or number. nan and ties as in `minimum`."""
    return of_two("maximum", MAXIMUM, MAXIMUM_CONSTANT, MAXIMUM_CONSTANT, x, y)


def atan2(y, x):
    """Return the angle of the point (x, y) in radians, of Values or a Value and a number. ValueError if both are 0."""
    return of_two("atan2", ATAN2, ATAN2_CONSTANT, CONSTANT_ATAN2, y, x)


def hypot(x, y):
    """Return sqrt(x**2 + y**2), of Values or a Value and a number. OverflowError if it is too large for a float.

    The gradient at (0, 0) is 0.
    """
    return of_two("hypot", HYPOT, HYPOT_CONSTANT, HYPOT_CONSTANT, x, y)


cdef Value of_two(str name, int of_values, int with_number, int of_number, object x, object y):
    """Return the op of two Values, that of a Value with a number, or that of a number and a Value."""
    if isinstance(x, Value):
        if isinstance(y, Value):
            return binary(of_values, <Value>x, <Value>y)
        return constant(with_number, <Value>x, as_number(y, name))
    if isinstance(y, Value):
        return constant(of_number, <Value>y, as_number(x, name))
    raise TypeError(f"{name} needs at least one Value, got {type(x).__name__} and {type(y).__name__}")


def where(condition, x, y):
    """Return `x` where the condition is not 0, else `y`: a new node whose one child is the one picked.

    A condition is a bool, a number, or a Value, of which the data count; a number that is picked becomes a leaf. Each of the
    three may also be a Vector or list, for a choice element by element, or Rows or a list of rows if `x` or `y` are Rows.
    Errors: TypeError if `x` and `y` are numbers, or a condition is none; ValueError if lengths differ.
    """
    if isinstance(x, Rows) or isinstance(y, Rows):
        n = as_rows(<Rows>(x if isinstance(x, Rows) else y)).n
        return new_rows(where(end_to_end(condition, n), end_to_end(x, n), end_to_end(y, n)), n)
    conditions = list(condition) if hasattr(condition, "__iter__") else None
    xs = elements_of(x)
    ys = elements_of(y)
    if xs is None and ys is None and not isinstance(x, Value) and not isinstance(y, Value):
        raise TypeError(f"where needs a Value or Vector to choose, got {type(x).__name__} and {type(y).__name__}")
    if conditions is None and xs is None and ys is None:
        chosen = x if holds(condition) else y
        return unary(WHERE, <Value>(chosen if isinstance(chosen, Value) else Value(chosen)))
    lengths = {len(given) for given in (conditions, xs, ys) if given is not None}
    if len(lengths) > 1:
        raise ValueError(f"where needs conditions and vectors of one length, got {' and '.join(map(str, sorted(lengths)))}")
    n = lengths.pop()
    return apply(WHERE, Vector([
        a if holds(c) else b for c, a, b in zip(conditions or [condition] * n, xs or [x] * n, ys or [y] * n)
    ]))


cdef bint holds(object condition) except -1:
    if not hasattr(condition, "__float__"):
        raise TypeError(f"where needs conditions that are bools, numbers or Values, got {type(condition).__name__}")
    return (condition.data if isinstance(condition, Value) else float(condition)) != 0.0


cdef list elements_of(object x):
    """Return the elements of a Vector or list, None for a Value or number."""
    cdef double k
    return None if isinstance(x, Value) or number(x, &k) else list(as_vector(x))


cdef object end_to_end(object x, uint32_t n):
    """Return the elements of Rows or a list of rows, each of length `n`, in one list; a Value or number as it is."""
    cdef list items = []
    if not hasattr(x, "__iter__"):
        return x
    for row in x:
        if not hasattr(row, "__len__") or <size_t>len(row) != n:
            raise ValueError(f"where needs rows of length {n}, got {len(row) if hasattr(row, '__len__') else type(row).__name__}")
        items.extend(row)
    return items


# Sets of numbers, such as logits, one after the other: group g has `sets` sets of n + g * growth numbers.
cdef struct Sets:
    uint32_t n
    uint32_t growth
    uint32_t sets
    uint32_t groups


cdef inline Sets sets_of(Vector z, uint32_t n) noexcept:
    """What `z` consists of, as groups of one set of `n` each."""
    return Sets(n, 0, 1, z.n // n)


cdef inline size_t count_numbers(Sets s) noexcept:
    """Numbers in all sets."""
    return <size_t>s.sets * (<size_t>s.groups * s.n + s.growth * (<size_t>s.groups * (s.groups - 1) // 2))


cdef uint32_t put_exponentials(Operands z, Sets s) except 0:
    """exp(z - max z) for each logit of each set; the maximum is a plain number, as in the reference. Room: twice the logits."""
    cdef uint32_t start = tape.top
    cdef uint32_t n = s.n
    cdef uint32_t first = 0
    cdef Operands of_set
    cdef double top
    cdef uint32_t _group, _set, i
    for _group in range(s.groups):
        for _set in range(s.sets):
            of_set = part(z, first)
            top = tape.data[at(of_set, 0)]
            for i in range(1, n):
                if tape.data[at(of_set, i)] > top:
                    top = tape.data[at(of_set, i)]
            note_shift(tape, put_constant_run(ADD_CONSTANT, of_set, n, -top), n)
            first += n
        n += s.growth
    return put_unary_run(EXP, run(start), first)


cdef uint32_t put_sums(uint32_t e, Sets s) except 0:
    """The sum of each set of the numbers from `e` on, set after set."""
    cdef uint32_t start = tape.top
    cdef uint32_t n = s.n
    cdef uint32_t _group, _set
    for _group in range(s.groups):
        for _set in range(s.sets):
            put_sum(run(e), n)
            e += n
        n += s.growth
    return start


cdef uint32_t put_softmax(Operands z, Sets s) except 0:
    """softmax of each set, set after set. Room: 4 * logits + sets. Each element has its own power node, which decides the last
    bit of the gradient.
    """
    cdef uint32_t e = put_exponentials(z, s)
    cdef uint32_t sum = put_sums(e, s)
    cdef uint32_t power = tape.top
    cdef uint32_t n = s.n
    cdef uint32_t _group, _set
    for _group in range(s.groups):
        for _set in range(s.sets):
            put_constant_run(POW_CONSTANT, same(sum), n, -1.0)
            sum += 1
        n += s.growth
    return put_pair_run(MUL, run(e), run(power), <uint32_t>count_numbers(s))


def softmax(logits):
    """Return exp(logits) / sum(exp(logits)), the maximum subtracted first.

    Shape: [n] -> [n], Rows [rows][n] -> [rows][n].
    Source: microgpt.py; each quotient e / total is e * total**-1, as there.
    """
    return each_row(softmax_of, logits)


cdef Vector softmax_of(Vector z, uint32_t n):
    """The softmax of each set of `n` logits."""
    cdef Vector result = new_vector()
    cdef Sets sets = sets_of(z, n)
    reserve(tape, 4 * <size_t>z.n + sets.groups)
    settle_result(result, put_softmax(elements(z, 0), sets), z.n)
    return result


def rmsnorm(x):
    """Scale `x` to unit root mean square.

    Shape: [n] -> [n], n >= 1, Rows [rows][n] -> [rows][n]. No learned gain.
    Source: Zhang & Sennrich 2019, without gain; 1e-5 inside the root as in microgpt.py.
    """
    return each_row(rmsnorm_of, x)


cdef Vector rmsnorm_of(Vector v, uint32_t n):
    """The rmsnorm of each set of `n` numbers."""
    cdef Vector result = new_vector()
    cdef Sets sets = sets_of(v, n)
    cdef Operands x
    cdef uint32_t scale, start, k
    reserve(tape, <size_t>v.n + 4 * <size_t>sets.groups)
    reserve_listed(tape, sets.groups * (2 * <size_t>sets.n + BLOCK_END))
    x = elements(v, 0)
    scale = put_dots(x, x, sets.n, sets.groups)
    scale = put_constant_run(MUL_CONSTANT, run(scale), sets.groups, pow(sets.n, -1.0))
    scale = put_constant_run(ADD_CONSTANT, run(scale), sets.groups, 1e-5)
    scale = put_constant_run(POW_CONSTANT, run(scale), sets.groups, -0.5)
    start = tape.top
    for k in range(sets.groups):
        put_pair_run(MUL, part(x, k * sets.n), same(scale + k), sets.n)
    settle_result(result, start, v.n)
    return result


def cross_entropy(logits, target):
    """Return -log softmax(logits)[target], in nats. Only the nodes that the result needs are made.

    Shape: [n], 0 <= target < n -> scalar; Rows [rows][n] and [rows] targets -> a Vector [rows].
    Errors: TypeError unless targets are whole numbers; IndexError for one outside; ValueError unless there is one for each row,
    and where the probability underflows to 0, as log raises it.
    """
    cdef Vector z
    cdef Value result
    cdef uint32_t i
    if isinstance(logits, Rows):
        if not hasattr(target, "__iter__"):
            raise TypeError(f"cross_entropy of Rows needs a target for each row, got {type(target).__name__}")
        return cross_entropies(as_rows(<Rows>logits).vector, (<Rows>logits).n, list(target))
    z = as_vector(logits)
    result = new_value()
    i = checked_target(target, z.n)
    reserve(tape, 2 * <size_t>z.n + 5)
    anchor(result, put_cross_entropies(elements(z, 0), sets_of(z, z.n), &i))
    finish(result.id)
    return result


cdef Vector cross_entropies(Vector z, uint32_t n, list given):
    cdef Vector result = new_vector()
    cdef uint32_t count = z.n // n
    cdef uint32_t i
    cdef uint32_t *targets
    if <size_t>len(given) != count:
        raise ValueError(f"cross_entropy needs a target for each of {count} rows, got {len(given)}")
    targets = <uint32_t *>PyMem_Malloc(count * sizeof(uint32_t))    # freed below
    if targets == NULL:
        raise MemoryError(f"no room for {count} targets")
    try:
        for i in range(count):
            targets[i] = checked_target(given[i], n)
        reserve(tape, 2 * <size_t>z.n + 5 * <size_t>count)
        settle_result(result, put_cross_entropies(elements(z, 0), sets_of(z, n), targets), count)
    finally:
        PyMem_Free(targets)
    return result


cdef uint32_t checked_target(object given, uint32_t n) except? 0:
    cdef Py_ssize_t target = as_whole(given)
    if not 0 <= target < <Py_ssize_t>n:
        raise IndexError(f"cross_entropy needs 0 <= target < {n}, got {given}")
    return <uint32_t>target


cdef uint32_t put_cross_entropies(Operands z, Sets s, const uint32_t *target) except 0:
    """Room: twice the logits, and five for each set."""
    cdef uint32_t e = put_exponentials(z, s)
    cdef uint32_t power = put_constant_run(POW_CONSTANT, run(put_sums(e, s)), s.groups, -1.0)
    cdef uint32_t p = tape.top
    cdef uint32_t k, i
    for k in range(s.groups):
        i = e + k * s.n + target[k]
        put_pair(tape, MUL, i, power + k, 0, tape.data[i] * tape.data[power + k])
    p = put_unary_run(LOG, run(p), s.groups)
    return put_constant_run(MUL_CONSTANT, run(p), s.groups, -1.0)


cdef struct Attention:
    uint32_t count                  # queries, which stand at the last of the positions
    uint32_t time                   # positions
    uint32_t n                      # length of a query, key or value
    uint32_t n_head
    Sets scores                     # a group for each query, a set for each head
    Positions keys
    Positions values


def attention(query, keys, values, n_head):
    """Return the values, weighted head by head by softmax(query . key / sqrt(head_dim)).

    Shape: query [n], keys and values [time][n], n_head a divisor of n -> [n], heads one after the other. Rows of queries
    [queries][n] -> [queries][n]: they stand at the last of the positions, and each sees the keys and values up to its own. The
    lists of keys and values may hold Rows, too.
    Errors: ValueError unless keys and values are as many, at least one for each query, and all of length n.
    Source: Vaswani et al. 2017.
    """
    cdef Vector q = as_rows(<Rows>query).vector if isinstance(query, Rows) else as_vector(query)
    cdef uint32_t n = (<Rows>query).n if isinstance(query, Rows) else q.n
    cdef Vector result = new_vector()
    cdef list k = vectors_of(keys, n)
    cdef list v = vectors_of(values, n)
    cdef size_t time = length_of(k, n)
    cdef Py_ssize_t heads = as_whole(n_head)
    cdef Attention a
    a.count = q.n // n
    if not 0 < heads <= <Py_ssize_t>n or n % heads:
        raise ValueError(f"attention needs n_head to divide {n}, got {n_head}")
    if time == 0 or time != length_of(v, n):
        raise ValueError(f"attention needs as many keys as values and at least one, got {time} and {length_of(v, n)}")
    if time < a.count:
        raise ValueError(f"attention needs a key for each of {a.count} queries, got {time}")
    if time > UINT32_MAX // q.n:
        raise MemoryError(f"{a.count} queries of {n} at {time} positions are too many for a tape")
    a.time = <uint32_t>time
    a.n = n
    a.n_head = <uint32_t>heads
    a.scores = Sets(a.time - a.count + 1, 1, a.n_head, a.count)
    a.keys.at = <Operands *>PyMem_Malloc((2 * time) * sizeof(Operands))    # freed below
    if a.keys.at == NULL:
        raise MemoryError(f"no room for attention over {time} positions")
    a.values.at = a.keys.at + time
    try:
        reserve(tape, 6 * count_numbers(a.scores) + <size_t>a.n_head * a.count + q.n)
        list_positions(&a.keys, k, n)
        list_positions(&a.values, v, n)
        reserve_listed(tape, q.n * ((0 if a.values.step and a.n_head < n else 2 * time) + BLOCK_END) + (
            count_numbers(a.scores) * (2 * <size_t>(n // a.n_head) + BLOCK_END) if q.listed != NULL or any_listed(k) else 0))
        list_positions(&a.keys, k, n)
        list_positions(&a.values, v, n)
        settle_result(result, put_attention(elements(q, 0), &a), q.n)
    finally:
        PyMem_Free(a.keys.at)
    return new_rows(result, n) if isinstance(query, Rows) else result


cdef list vectors_of(object given, uint32_t n):
    """Return the elements of keys or values, in Vectors of one or more positions: the caller's own list may change while one is
    made.
    """
    cdef list vectors
    cdef uint32_t length
    cdef Py_ssize_t i
    if isinstance(given, Matrix):
        given = rows_of(given)
    elif isinstance(given, Handle) or not hasattr(given, "__iter__"):
        raise TypeError(f"attention needs lists of keys and values, got {type(given).__name__}")
    vectors = [given] if isinstance(given, Rows) else list(given)
    for i in range(len(vectors)):
        if isinstance(vectors[i], Rows):
            length = as_rows(<Rows>vectors[i]).n
            vectors[i] = (<Rows>vectors[i]).vector
        else:
            vectors[i] = as_vector(vectors[i])
            length = (<Vector>vectors[i]).n
        if length != n:
            raise ValueError(f"attention needs keys and values of the query's length {n}, got {length}")
    return vectors


cdef size_t length_of(list vectors, uint32_t n) noexcept:
    """Number of positions."""
    cdef size_t time = 0
    cdef Vector v
    for v in vectors:
        time += v.n // n
    return time


cdef bint any_listed(list vectors) noexcept:
    cdef Vector v
    for v in vectors:
        if v.listed != NULL:
            return True
    return False


cdef void list_positions(Positions *positions, list vectors, uint32_t n) noexcept:
    """Write the elements of each position, and whether these follow each other on the tape. Void after the next reserve.

    A node with operands a step apart keeps what lies between: here, more of the same positions.
    """
    cdef Vector v
    cdef uint32_t i
    cdef uint32_t count = 0
    cdef bint follow = True
    for v in vectors:
        for i in range(v.n // n):
            positions.at[count] = elements(v, i * n)
            follow &= v.listed == NULL
            count += 1
    for i in range(1, count):
        follow &= positions.at[i].start - positions.at[i - 1].start == n
    positions.step = n if follow else 0


cdef uint32_t put_attention(Operands q, const Attention *a) except 0:
    """Room: six nodes for each score, one for each set of them, and one for each element of the queries."""
    cdef uint32_t head_dim = a.n // a.n_head
    cdef uint32_t scores = tape.top
    cdef uint32_t time = a.scores.n
    cdef uint32_t weights, start, i, head
    for i in range(a.count):
        for head in range(a.n_head):
            put_scores(part(q, i * a.n + head * head_dim), &a.keys, head * head_dim, head_dim, time + i)
    scores = put_constant_run(MUL_CONSTANT, run(scores), <uint32_t>count_numbers(a.scores), pow(pow(head_dim, 0.5), -1.0))
    weights = put_softmax(run(scores), a.scores)
    start = tape.top
    for i in range(a.count):
        for head in range(a.n_head):
            put_mixture(weights, &a.values, head * head_dim, head_dim, time + i)
            weights += time + i
    return start
