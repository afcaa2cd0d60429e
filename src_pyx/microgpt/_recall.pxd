# Shapes of graphs, recalled from one search to the next.

from libc.stdint cimport uint32_t, uint64_t

from microgpt._tape cimport DOT, LAST_BINARY, LAST_UNARY, SUM, Node, Tape, listed_operands

cdef extern from *:
    """
    #define MICROGPT_NONE UINT32_MAX
    #define MICROGPT_MOVES UINT32_MAX
    """
    const uint32_t NONE "MICROGPT_NONE"
    const uint32_t MOVES "MICROGPT_MOVES"       # a mask: the start of the span is to be added to the id

cdef struct Run:
    uint32_t first                  # nodes [first, first + count), of one op, operands each the same step further; or one node
    uint32_t count

cdef struct Part:                   # a run of a shape. Ids of computed nodes are distances from the start of the span
    uint32_t first
    uint32_t count
    uint32_t op
    uint32_t a                      # operands of the first one, as in a Node
    uint32_t b
    uint32_t n
    uint32_t moves_a                # MOVES if the operands are computed nodes, else 0
    uint32_t moves_b
    uint64_t step[2]                # from one node to the next, as is_run wants it
    bint loose                      # whether others may be its operands (`write_parts`)
    uint32_t listed                 # where the operands of its nodes begin in `listed`, if the op lists them

cdef struct Listed:
    uint32_t id
    uint32_t moves                  # MOVES if it is a computed node, 0 if a leaf

cdef struct Span:
    uint32_t start
    uint32_t n

cdef struct Shape:                  # owner of its arrays, until it is forgotten
    uint32_t n                      # length of the span
    uint32_t next                   # the shape that was recalled after this one
    uint32_t length                 # of `part`
    uint32_t nodes
    bint proven                     # whether it was ever recalled
    uint32_t pieces                 # that `inside`, `outside` and `leaves` each have room for
    uint32_t inside_length
    uint32_t outside_length
    uint32_t leaves_length
    uint32_t listed_length
    uint32_t size                   # by which its sights are counted, as in Search
    Part *part                      # in the order of the search
    Span *inside                    # its nodes, by their distance
    Span *outside                   # computed nodes that are operands, by their distance
    Span *leaves                    # leaves that are operands, by their id, but for those of loose runs
    Listed *listed

cdef void begin_recall() noexcept nogil
cdef void begin_shape() noexcept nogil
cdef size_t recall(Tape *t, uint32_t start, uint32_t n, Span beside, Run *order, size_t *nodes) noexcept nogil
cdef uint32_t latest_shape() noexcept nogil
cdef bint stands_before(Tape *t, uint32_t k, uint32_t start, uint32_t width, const Run *tail, size_t length) noexcept nogil
cdef bint is_worth_a_shape(size_t nodes) noexcept nogil
cdef bint was_learnt_in_vain(uint32_t n, size_t size) noexcept nogil
cdef bint may_bundle(uint32_t n, size_t size) noexcept nogil
cdef void give_up_bundle(uint32_t n, size_t size) noexcept nogil
cdef bint count_sight(uint32_t n, size_t size) noexcept nogil
cdef void add_shape(Shape *shape) noexcept
cdef void free_shape(Shape *shape) noexcept


cdef inline uint32_t extent(const Node *node) noexcept nogil:
    """Number of operands in each span of a node whose op lists none."""
    return 1 if node.op <= LAST_BINARY else node.argument.pair.n


cdef inline uint32_t span_count(const Node *node) noexcept nogil:
    """Number of spans of operands of a node; those in the pool are spans of one."""
    if node.op > DOT:
        return listed_operands(node)
    return 1 if node.op <= LAST_UNARY or node.op == SUM else 2
