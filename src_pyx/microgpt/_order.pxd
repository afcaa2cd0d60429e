# The order of the last search.

from libc.stdint cimport uint32_t

from microgpt._tape cimport DOT, DOT_LISTED, DOT_STRIDED, SUM, Node, Run, Tape, record_at, stride_at

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
    return record_at(t, i).argument.pair.n


cdef inline uint32_t first(Tape *t, const Node *node, uint32_t k) noexcept nogil:
    """The k-th operand of a sum (or custom node), or the first of the k-th pair of a dot."""
    if node.op == SUM or node.op == DOT or node.op == DOT_STRIDED:
        return node.a + k
    return t.pool[node.a + (2 * k if node.op == DOT_LISTED else k)]


cdef inline uint32_t second(Tape *t, uint32_t i, const Node *node, uint32_t k) noexcept nogil:
    """The second operand of the k-th pair of a dot, which is node `i`; of a sum the same as the first."""
    if node.op == DOT:
        return node.argument.pair.b + k
    if node.op == DOT_LISTED:
        return t.pool[node.a + 2 * k + 1]
    if node.op == DOT_STRIDED:
        return node.argument.pair.b + k * stride_at(t, i)
    return first(t, node, k)
