"""Emitters: one node for each element of a run, in loops that choose the op once."""

from libc.stdint cimport uint8_t, uint32_t

from microgpt._ops cimport evaluate, exp_value
from microgpt._tape cimport (
    ADD, ADD_CONSTANT, DOT, DOT_LISTED, DOT_STRIDED, EXP, LAST_UNARY, MUL, MUL_CONSTANT, RELU, RUN, SUM, SUM_LISTED, Argument,
    Node, Steps, put_block, put_pair, tape
)
from microgpt._vectors cimport chosen

cdef extern from "kernels.h" nogil:
    void dot_rows(double *y, const double *w, const double *x, size_t rows, size_t n, size_t step)
    void start_run(double *grad, uint8_t *seen, uint32_t *record_of, uint32_t record, size_t n)
    void relu_run(double *y, const double *x, size_t n)


cdef inline Argument pair(uint32_t b, uint32_t n) noexcept:
    cdef Argument argument
    argument.pair.b = b
    argument.pair.n = n
    return argument


cdef uint32_t put_unary_run(uint8_t op, Operands x, uint32_t n) except 0:
    return put_constant_run(op, x, n, 0.0)


cdef inline void add_run(uint8_t op, uint32_t a, uint32_t step_a, Argument argument, uint32_t step_b, uint32_t n) noexcept:
    """Put `n` nodes, one at least, whose data are written already."""
    cdef uint32_t start = tape.top
    cdef uint32_t r = tape.record_top
    cdef Node *record = &tape.record[r]
    record.op = op
    record.a = a
    record.argument = argument
    if n > 1:
        record.op |= RUN
        (<Steps *>&record[1])[0] = Steps(start, n, step_a, step_b)
    tape.record_top = r + (2 if n > 1 else 1)
    start_run(&tape.grad[start], &tape.seen[start], &tape.record_of[start], r, n)
    tape.top = start + n


cdef inline void put_run(uint8_t op, Operands x, Argument argument, uint32_t step_b, uint32_t n) noexcept:
    """Put `n` nodes whose data are written already."""
    if x.listed != NULL:
        put_listed_run(op, x.listed, argument, step_b, n)
    elif n > 0:
        add_run(op, x.start, x.step, argument, step_b, n)


cdef void put_listed_run(uint8_t op, const uint32_t *listed, Argument argument, uint32_t step_b, uint32_t n) noexcept:
    """As `put_run`, where first operands are listed: mostly rows of one length, some of which follow each other by chance."""
    cdef uint32_t shortest = n
    cdef uint32_t first = 0
    cdef uint32_t i
    for i in range(1, n + 1):
        if i == n or listed[i] != listed[i - 1] + 1:
            shortest = min(shortest, i - first)
            first = i
    first = 0
    for i in range(1, n + 1):
        if i == n or listed[i] != listed[i - 1] + 1 or i - first == shortest:
            add_run(op, listed[first], 1, argument, step_b, i - first)
            if op > LAST_UNARY:
                argument.pair.b += (i - first) * step_b
            first = i


cdef uint32_t put_constant_run(uint8_t op, Operands x, uint32_t n, double k) except 0:
    cdef uint32_t start = tape.top
    cdef double *data = tape.data
    cdef double *result = &data[start]
    cdef Argument argument
    cdef uint32_t i
    if x.listed == NULL and x.step == 0:        # n times the same
        result[0] = evaluate(op, data[x.start], k)
        for i in range(1, n):
            result[i] = result[0]
    elif x.listed != NULL or x.step != 1:
        for i in range(n):
            result[i] = evaluate(op, data[at(x, i)], k)
    elif op == ADD_CONSTANT:                    # the choice of the op outside the loop, where it is a plain one
        for i in range(n):
            result[i] = data[x.start + i] + k
    elif op == MUL_CONSTANT:
        for i in range(n):
            result[i] = data[x.start + i] * k
    elif op == RELU:
        relu_run(result, &data[x.start], n)
    elif op == EXP:
        for i in range(n):
            result[i] = exp_value(data[x.start + i])
    else:
        for i in range(n):
            result[i] = evaluate(op, data[x.start + i], k)
    argument.constant = k
    put_run(op, x, argument, 0, n)
    return start


cdef uint32_t put_pair_run(uint8_t op, Operands x, Operands y, uint32_t n) except 0:
    cdef uint32_t start = tape.top
    cdef double *data = tape.data
    cdef double *result = &data[start]
    cdef uint32_t i
    if op == ADD:
        for i in range(n):
            result[i] = data[at(x, i)] + data[at(y, i)]
    elif op == MUL:
        for i in range(n):
            result[i] = data[at(x, i)] * data[at(y, i)]
    else:
        for i in range(n):
            result[i] = evaluate(op, data[at(x, i)], data[at(y, i)])
    if y.listed == NULL:
        put_run(op, x, pair(y.start, 0), y.step, n)
        return start
    for i in range(n):
        put_pair(tape, op, at(x, i), y.listed[i], 0, result[i])
    return start


cdef uint32_t put_sum(Operands x, uint32_t n) noexcept:
    """Room for a listed sum: n + BLOCK_END words."""
    cdef double total = 0.0
    cdef uint32_t i, start
    for i in range(n):
        total += tape.data[at(x, i)]
    if x.listed == NULL and x.step == 1:
        return put_pair(tape, SUM, x.start, 0, n, total)
    start = put_block(tape, n)
    for i in range(n):
        tape.pool[start + i] = at(x, i)
    return put_pair(tape, SUM_LISTED, start, 0, n, total)


cdef uint32_t put_dot(Operands x, Operands y, uint32_t n) noexcept:
    """Room for a listed dot: 2 * n + BLOCK_END words."""
    cdef const double *data = tape.data
    cdef uint32_t *listed
    cdef double total = 0.0
    cdef uint32_t i, start
    if x.listed == NULL and x.step == 1 and y.listed == NULL and y.step == 1:
        for i in range(n):
            total += data[x.start + i] * data[y.start + i]
        return put_pair(tape, DOT, x.start, y.start, n, total)
    start = put_block(tape, 2 * <size_t>n)
    listed = &tape.pool[start]
    for i in range(n):
        listed[2 * i] = at(x, i)
        listed[2 * i + 1] = at(y, i)
        total += data[at(x, i)] * data[at(y, i)]
    return put_pair(tape, DOT_LISTED, start, 0, n, total)


cdef uint32_t put_dots(Operands x, Operands y, uint32_t n, uint32_t count) noexcept:
    """`count` dots of the parts of length `n` of `x` and `y`, which are runs or listed.

    Room for listed dots: count * (2 * n + BLOCK_END) words.
    """
    cdef uint32_t start = tape.top
    cdef const double *a = &tape.data[x.start]
    cdef const double *b = &tape.data[y.start]
    cdef double total
    cdef uint32_t i, k
    if x.listed != NULL or y.listed != NULL:
        for i in range(count):
            put_dot(part(x, i * n), part(y, i * n), n)
        return start
    for i in range(count):
        total = 0.0
        for k in range(i * n, (i + 1) * n):
            total += a[k] * b[k]
        tape.data[start + i] = total
    put_run(DOT, Operands(x.start, n, NULL), pair(y.start, n), n, count)
    return start


cdef uint32_t put_scores(Operands x, const Positions *y, uint32_t first, uint32_t n, uint32_t count) noexcept:
    """Dots of `x` with the operands numbered [first, first + n) of each of the first `count` positions."""
    cdef uint32_t start = tape.top
    cdef uint32_t k, b
    if y.step == 0 or x.listed != NULL:
        for k in range(count):
            put_dot(x, part(y.at[k], first), n)
        return start
    b = y.at[0].start + first
    dot_rows(&tape.data[start], &tape.data[b], &tape.data[x.start], count, n, y.step)
    put_run(DOT, same(x.start), pair(b, n), y.step, count)
    return start


cdef uint32_t put_mixture(uint32_t weights, const Positions *y, uint32_t first, uint32_t n, uint32_t count) noexcept:
    """Weighted sums of the columns numbered [first, first + n) of the first `count` positions.

    Room for listed dots: n * (2 * count + BLOCK_END) words, where positions are not a step apart or `n` is 1.
    """
    cdef uint32_t start = tape.top
    cdef double *result = &tape.data[start]
    cdef const double *data = tape.data
    cdef const double *row
    cdef double weight
    cdef uint32_t j, k
    if y.step == 0 or n == 1:       # one node is no run
        for j in range(n):
            put_weighted_sum(weights, y, first + j, count)
        return start
    for k in range(count):
        weight = data[weights + k]
        row = &data[y.at[k].start + first]
        for j in range(n):
            result[j] = (result[j] if k > 0 else 0.0) + weight * row[j]
    add_run(DOT_STRIDED, weights, y.step, pair(y.at[0].start + first, count), 1, n)
    return start


cdef void put_weighted_sum(uint32_t weights, const Positions *y, uint32_t column, uint32_t count) noexcept:
    cdef uint32_t start = put_block(tape, 2 * <size_t>count)
    cdef double total = 0.0
    cdef uint32_t k, id
    for k in range(count):
        id = at(y.at[k], column)
        tape.pool[start + 2 * k] = weights + k
        tape.pool[start + 2 * k + 1] = id
        total += tape.data[weights + k] * tape.data[id]
    put_pair(tape, DOT_LISTED, start, 0, count, total)


cdef uint32_t put_products(uint32_t matrix, uint32_t rows, Operands x, uint32_t n, uint32_t count) except 0:
    """The products of a matrix, which starts at `matrix`, with `count` vectors of length `n`: a dot for each row, vector after
    vector. Room for listed dots: count * rows * (2 * n + BLOCK_END) words.
    """
    cdef uint32_t start = tape.top
    cdef uint32_t i, k
    if x.listed != NULL:
        for k in range(count):
            for i in range(rows):
                put_dot(run(matrix + i * n), part(x, k * n), n)
        return start
    chosen.products(&tape.data[start], &tape.data[matrix], &tape.data[x.start], rows, n, count)
    for k in range(count):
        put_run(DOT, Operands(matrix, n, NULL), pair(x.start + k * n, n), 0, rows)
    return start
