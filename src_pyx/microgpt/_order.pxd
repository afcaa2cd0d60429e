# The order of the last search.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._recall cimport Run
from microgpt._tape cimport DOT, DOT_LISTED, SUM, Tape

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

    size_t watched                  # depth of the dot whose span is a shape to be, 0 for none
    size_t before                   # length of `order` when the search came to it
    uint32_t span                   # the first of its operands
    size_t size                     # by which its sights are counted: the nodes below; of a bundle those from it to the top
    bint node_by_node               # whether its shape is learnt: then in the plain order

    bint recalls                    # whether shapes are looked for at all
    bint bundle                     # whether the span of the next dot may be bundled with those that follow it
    uint32_t bundled                # how many operands were, 0 if none
    uint32_t width                  # of each span of them
    uint32_t shape                  # number of the shape of what is below them
    size_t tail                     # length of `order` with that, which begins what came after it

cdef Search search

cdef enum:
    BUNDLE = 0                      # id of a sum that stands for several dots while their operands are searched
    BETWEEN_SIGNALS = 1 << 16       # nodes between two looks at pending signals: a millisecond, more where dots are long

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
    return t.pool[t.node[i].a + (2 * k if op == DOT_LISTED else k)]


cdef inline uint32_t second(Tape *t, uint32_t i, uint32_t k) noexcept nogil:
    """The second operand of the k-th pair of a dot; of a sum the same as the first."""
    cdef uint8_t op = t.node[i].op
    if op == DOT:
        return t.node[i].argument.pair.b + k
    if op == DOT_LISTED:
        return t.pool[t.node[i].a + 2 * k + 1]
    return first(t, i, k)
