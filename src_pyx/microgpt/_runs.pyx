"""Emitters: one node for each element of a run, in loops that choose the op once."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from microgpt._ops cimport evaluate, relu_value
from microgpt._tape cimport (
    ADD, ADD_CONSTANT, DOT, DOT_LISTED, MUL, MUL_CONSTANT, RELU, SUM, SUM_LISTED, UNSEEN, Node, put_block, put_pair, tape
)

cdef extern from "kernels.h" nogil:
    void dot_rows(double *y, const double *w, const double *x, size_t rows, size_t n)


cdef uint32_t put_unary_run(uint8_t op, Operands x, uint32_t n) except 0:
    return put_constant_run(op, x, n, 0.0)


cdef inline void put_run(uint8_t op, Operands x, uint32_t n) noexcept nogil:
    """Put `n` nodes whose data and arguments are written already."""
    cdef Node *nodes = &tape.node[tape.top]       # locals: for all that C knows, a store of bytes changes the tape
    cdef double *grad = &tape.grad[tape.top]
    cdef uint8_t *seen = &tape.seen[tape.top]
    cdef PyObject **handle = &tape.handle[tape.top]
    cdef uint32_t i
    for i in range(n):
        nodes[i].op = op
        nodes[i].a = at(x, i)
        grad[i] = 0.0
        seen[i] = UNSEEN
        handle[i] = NULL
    tape.top += n


cdef uint32_t put_constant_run(uint8_t op, Operands x, uint32_t n, double k) except 0:
    cdef uint32_t start = tape.top
    cdef Node *nodes = &tape.node[start]
    cdef double *data = tape.data
    cdef double *result = &data[start]
    cdef uint32_t i
    if x.listed != NULL:
        for i in range(n):
            result[i] = evaluate(op, data[x.listed[i]], k)
    elif x.step == 0:                           # n times the same
        result[0] = evaluate(op, data[x.start], k)
        for i in range(1, n):
            result[i] = result[0]
    elif op == ADD_CONSTANT:                    # the choice of the op outside the loop, where it is a plain one
        for i in range(n):
            result[i] = data[x.start + i] + k
    elif op == MUL_CONSTANT:
        for i in range(n):
            result[i] = data[x.start + i] * k
    elif op == RELU:
        for i in range(n):
            result[i] = relu_value(data[x.start + i])
    else:
        for i in range(n):
            result[i] = evaluate(op, data[x.start + i], k)
    for i in range(n):
        nodes[i].argument.constant = k
    put_run(op, x, n)
    return start


cdef uint32_t put_pair_run(uint8_t op, Operands x, Operands y, uint32_t n) except 0:
    cdef uint32_t start = tape.top
    cdef Node *nodes = &tape.node[start]
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
    for i in range(n):
        nodes[i].argument.pair.b = at(y, i)
        nodes[i].argument.pair.n = 0
    put_run(op, x, n)
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


cdef uint32_t put_product(uint32_t matrix, uint32_t rows, Operands x, uint32_t n) except 0:
    """A dot of each row with `x`; the first row starts at `matrix`. Room for listed dots: rows * (2 * n + BLOCK_END) words."""
    cdef uint32_t start = tape.top
    cdef Node *nodes = &tape.node[start]
    cdef uint32_t i
    if x.listed != NULL:
        for i in range(rows):
            put_dot(run(matrix + i * n), x, n)
        return start
    dot_rows(&tape.data[start], &tape.data[matrix], &tape.data[x.start], rows, n)
    for i in range(rows):
        nodes[i].argument.pair.b = x.start
        nodes[i].argument.pair.n = n
    put_run(DOT, Operands(matrix, n, NULL), rows)
    return start
