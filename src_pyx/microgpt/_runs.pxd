# Runs of nodes as operands, and emitters of runs.

from libc.stdint cimport uint8_t, uint32_t

cdef struct Operands:
    uint32_t start
    uint32_t step                   # 1 for a run, 0 for one node used again and again, more for one in so many
    uint32_t *listed                # or the ids one by one

cdef struct Positions:              # vectors of one length
    Operands *at                    # of each
    uint32_t step                   # from each to the next on the tape, where they follow each other; else 0

cdef inline Operands run(uint32_t start) noexcept nogil:
    return Operands(start, 1, NULL)

cdef inline Operands same(uint32_t id) noexcept nogil:
    return Operands(id, 0, NULL)

cdef inline uint32_t at(Operands x, uint32_t i) noexcept nogil:
    return x.start + i * x.step if x.listed == NULL else x.listed[i]

cdef inline Operands part(Operands x, uint32_t first) noexcept nogil:
    """The operands from number `first` on."""
    if x.listed != NULL:
        return Operands(0, 0, &x.listed[first])
    return Operands(x.start + first * x.step, x.step, NULL)

# These put nodes into room reserved before and return the id of the node, or of the first of the run.
cdef uint32_t put_unary_run(uint8_t op, Operands x, uint32_t n) except 0
cdef uint32_t put_constant_run(uint8_t op, Operands x, uint32_t n, double k) except 0
cdef uint32_t put_pair_run(uint8_t op, Operands x, Operands y, uint32_t n) except 0
cdef uint32_t put_sum(Operands x, uint32_t n) noexcept
cdef uint32_t put_dot(Operands x, Operands y, uint32_t n) noexcept
cdef uint32_t put_dots(Operands x, Operands y, uint32_t n, uint32_t count) noexcept
cdef uint32_t put_scores(Operands x, const Positions *y, uint32_t first, uint32_t n, uint32_t count) noexcept
cdef uint32_t put_mixture(uint32_t weights, const Positions *y, uint32_t first, uint32_t n, uint32_t count) noexcept
cdef uint32_t put_products(uint32_t matrix, uint32_t rows, Operands x, uint32_t n, uint32_t count) except 0
