# The order of the last search.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport DOT, DOT_LISTED, DOT_STRIDED, SUM, Run, Tape

cdef struct Step:
    uint32_t id                     # a node on the path from the root to where the search is
    uint32_t next                   # the operand to look at next; those before are OPEN

cdef struct Segment:
    uint32_t low                    # operands [low, high) of a sum or dot
    uint32_t high

cdef struct Search:                 # its arrays are owned here and freed by `free_large`
    Run *order                      # the nodes, each after its children; the path from the other end (`path`)
    Segment *segment                # of each entry of `order`, where sums are split
    size_t length                   # of `order`
    size_t depth                    # length of the path
    uint32_t limit                  # operands of a sum or dot that `take` may look at next time
    size_t room                     # entries and steps that fit into `order`
    size_t segment_room
    uint32_t *joined                # entries that were taken together with the one before
    size_t joined_length
    size_t joined_room

cdef Search search

cdef enum:
    BETWEEN_SIGNALS = 1 << 16       # nodes between two looks at pending signals: a millisecond, more where dots are long

cdef int make_room(size_t n, bint split) except -1
cdef int arrange(Tape *t, uint32_t root) except -1
cdef void forget(Tape *t) noexcept nogil
cdef void free_large() noexcept


cdef inline uint32_t operands(Tape *t, uint32_t i) noexcept nogil:
    """Number of operands of a sum (or custom node), or of pairs of operands of a dot."""
    return t.node[i].argument.pair.n


cdef inline uint32_t first(Tape *t, uint32_t i, uint32_t k) noexcept nogil:
    """The k-th operand of a sum (or custom node), or the first of the k-th pair of a dot."""
    cdef uint8_t op = t.node[i].op
    if op == SUM or op == DOT:
        return t.node[i].a + k
    if op == DOT_STRIDED:
        return t.pool[t.node[i].a] + k
    return t.pool[t.node[i].a + (2 * k if op == DOT_LISTED else k)]


cdef inline uint32_t second(Tape *t, uint32_t i, uint32_t k) noexcept nogil:
    """The second operand of the k-th pair of a dot; of a sum the same as the first."""
    cdef uint8_t op = t.node[i].op
    if op == DOT:
        return t.node[i].argument.pair.b + k
    if op == DOT_LISTED:
        return t.pool[t.node[i].a + 2 * k + 1]
    if op == DOT_STRIDED:
        return t.pool[t.node[i].a + 1] + k * t.pool[t.node[i].a + 2]
    return first(t, i, k)
