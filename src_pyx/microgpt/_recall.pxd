# Shapes of graphs, recalled from one search to the next.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport Tape

cdef struct Run:
    uint32_t first                  # nodes [first, first + count), of one op, operands each the same step further; or one node
    uint32_t count

cdef void begin_recall() noexcept nogil
cdef size_t recall(Tape *t, uint32_t start, uint32_t n, uint32_t beside, Run *order, size_t *nodes) noexcept nogil
cdef bint count_sight(uint32_t n, size_t nodes) noexcept nogil
cdef void learn(Tape *t, uint32_t start, uint32_t n, const Run *order, size_t length) noexcept
