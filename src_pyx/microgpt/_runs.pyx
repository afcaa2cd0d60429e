"""Emitters: one node for each element of a run, in loops that choose the op once."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from microgpt._ops cimport evaluate, exp_value
from microgpt._tape cimport (
    ADD, ADD_CONSTANT, DOT, DOT_LISTED, DOT_STRIDED, EXP, MUL, MUL_CONSTANT, RELU, STRIDED_WORDS, SUM, SUM_LISTED, Argument,
    block_length, end_block, log_run, put_block, put_pair, tape
)
from microgpt._vectors cimport chosen

cdef extern from "kernels.h" nogil:
    void dot_rows(double *y, const double *w, const double *x, size_t rows, size_t n, size_t step)
    void clear_run(double *grad, uint8_t *seen, size_t n)
    void relu_run(double *y, const double *x, size_t n)
    uint64_t word(uint32_t first, uint32_t second)
    void write_run(void *nodes, uint64_t head, uint64_t argument, uint64_t head_step, uint64_t argument_step, size_t n)


cdef uint32_t put_unary_run(uint8_t op, Operands x, uint32_t n) except 0:
    return put_constant_run(op, x, n, 0.0)


cdef inline void put_run(uint8_t op, Operands x, uint64_t argument, uint64_t argument_step, uint32_t n) noexcept:
    """Put `n` nodes whose data are written already, the arguments each a step further; the caller lists second operands."""
    cdef uint32_t start = tape.top
    cdef uint32_t i
    write_run(&tape.node[start], word(op, x.start), argument, word(0, x.step), argument_step, n)
    if x.listed != NULL:
        for i in range(n):
            tape.node[start + i].a = x.listed[i]
        log_listed(start, x.listed, n)
    elif n > 1:
        log_run(tape, start, n)
    clear_run(&tape.grad[start], &tape.seen[start], n)
    tape.top = start + n


cdef void log_listed(uint32_t start, const uint32_t *listed, uint32_t n) noexcept:
    """Note the runs of nodes whose operands are listed: mostly rows of one length, some of which follow each other by chance."""
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
            if i - first > 1:
                log_run(tape, start + first, i - first)
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
    put_run(op, x, argument.stamp, 0, n)
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
        put_run(op, x, word(y.start, 0), word(y.step, 0), n)
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
    put_run(DOT, Operands(x.start, n, NULL), word(y.start, n), word(n, 0), count)
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
    put_run(DOT, same(x.start), word(b, n), word(y.step, 0), count)
    return start


cdef uint32_t put_mixture(uint32_t weights, const Positions *y, uint32_t first, uint32_t n, uint32_t count) noexcept:
    """Weighted sums of the columns numbered [first, first + n) of the first `count` positions.

    Room for listed dots: n * (2 * count + BLOCK_END) words, or n * (STRIDED_WORDS + BLOCK_END) where positions are a step apart.
    """
    cdef uint32_t start = tape.top
    cdef double *result = &tape.data[start]
    cdef const double *data = tape.data
    cdef const double *row
    cdef double weight
    cdef uint32_t block = <uint32_t>tape.pool_top
    cdef uint32_t *listed = &tape.pool[block]
    cdef uint32_t length, j, k
    if y.step == 0:
        for j in range(n):
            put_weighted_sum(weights, y, first + j, count)
        return start
    for k in range(count):
        weight = data[weights + k]
        row = &data[y.at[k].start + first]
        for j in range(n):
            result[j] = (result[j] if k > 0 else 0.0) + weight * row[j]
    length = <uint32_t>block_length(STRIDED_WORDS)
    for j in range(n):
        listed[0] = weights
        listed[1] = y.at[0].start + first + j
        listed[2] = y.step
        end_block(listed, length, start + j)
        listed += length
    tape.pool_top += <size_t>n * length
    put_run(DOT_STRIDED, Operands(block, length, NULL), word(0, count), 0, n)
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
        put_run(DOT, Operands(matrix, n, NULL), word(x.start + k * n, n), 0, rows)
    return start
