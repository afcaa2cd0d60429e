"""The nodes that a root reaches, in the reference's order, to be looked at.

The search here is the plain one, operand by operand, with scratch of its own: it goes to leaves, too, and marks nothing on the
tape. Sums and dots are split as the reference's chain of additions has them (_order.pyx), so that gradients computed along its
steps are those of backward() to the last bit.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT32_MAX, uint32_t
from libc.stdlib cimport calloc, free, malloc

from microgpt._order cimport BETWEEN_SIGNALS, first, second
from microgpt._tape cimport (
    CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, LAST_BINARY, LAST_UNARY, LEAF, RUN, Node, Tape, block_length, custom_words,
    listed_operands, look_at, op_at, record_at, steps_of, tape
)


cdef inline void arrive(Tape *t, Found *found, uint32_t id) noexcept nogil:
    """Go to a node that was not reached before. A leaf is done with at once."""
    if op_at(t, id) == LEAF:
        leave(found, id)
        return
    found.place[id] = UINT32_MAX
    found.path[found.depth] = Turn(id, 0, 0)
    found.depth += 1


cdef inline void leave(Found *found, uint32_t id) noexcept nogil:
    if record_at(tape, id).op & RUN:
        found.records += 2 * (steps_of(record_at(tape, id)).first == id)
    else:
        found.records += 1
    found.order[found.nodes] = id
    found.nodes += 1
    found.place[id] = found.nodes


cdef inline void add_step(Found *found, uint32_t id, uint32_t low, uint32_t high) noexcept nogil:
    found.steps[found.length] = Step(id, low, high)
    found.length += 1


cdef inline bint arrive_below(Tape *t, Found *found, uint32_t id) noexcept nogil:
    """Go to an operand. Return whether there is something below it to be done first."""
    if found.place[id] != 0:
        return False
    arrive(t, found, id)
    return op_at(t, id) != LEAF


cdef void go_on(Tape *t, Found *found) noexcept nogil:
    """Go to the next operand of the last node of the path that has something below it, or leave that node."""
    cdef Turn *turn = &found.path[found.depth - 1]
    cdef uint32_t id = turn.id
    cdef Node room
    cdef const Node *node = look_at(t, id, &room)
    cdef uint32_t op = node.op
    cdef uint32_t n, k
    if op <= LAST_BINARY:
        if arrive_below(t, found, node.a) or (op > LAST_UNARY and arrive_below(t, found, node.argument.pair.b)):
            return
        found.edges += 1 if op <= LAST_UNARY else 2
        found.depth -= 1
        add_step(found, id, 0, 1)
        leave(found, id)
        return
    n = node.argument.pair.n
    k = turn.next
    while k < n:
        if op == DOT:
            if found.place[node.a + k] != 0 and found.place[node.argument.pair.b + k] != 0:
                k += 1
                continue
        if is_below(t, found, first(t, node, k)) or is_below(t, found, second(t, id, node, k)):
            # What is below comes between the terms of the chain of additions before it and those after it.
            if op != CUSTOM and k > turn.low:
                add_step(found, id, turn.low, k)
                turn.low = k
            turn.next = k
            if arrive_below(t, found, first(t, node, k)) or arrive_below(t, found, second(t, id, node, k)):
                return
        else:
            arrive_below(t, found, first(t, node, k))
            arrive_below(t, found, second(t, id, node, k))
        k += 1
    found.edges += operand_edges(op, n)
    if op == CUSTOM:
        found.own_partials += n
        found.words += block_length(custom_words(n))
    elif listed_operands(node) > 0:
        found.words += block_length(listed_operands(node))
    add_step(found, id, turn.low, n)
    found.depth -= 1
    leave(found, id)


cdef inline bint is_below(Tape *t, Found *found, uint32_t id) noexcept nogil:
    """Whether a computed node was not reached before."""
    return found.place[id] == 0 and op_at(t, id) != LEAF


cdef inline size_t operand_edges(uint32_t op, uint32_t n) noexcept nogil:
    return 2 * <size_t>n if op == DOT or op == DOT_LISTED or op == DOT_STRIDED else n


cdef int search(Found *found, uint32_t root) except -1:
    cdef size_t turns = 0
    arrive(tape, found, root)
    while found.depth > 0:
        go_on(tape, found)
        turns += 1
        if turns % BETWEEN_SIGNALS == 0:
            PyErr_CheckSignals()
    return 0


cdef int allocate(Found *found, size_t n) except -1:
    """Make room for a search below id `n`: pages that it does not come to are never touched."""
    found.place = <uint32_t *>calloc(n, sizeof(uint32_t))
    found.order = <uint32_t *>malloc(n * sizeof(uint32_t))
    found.steps = <Step *>malloc(2 * n * sizeof(Step))      # one where a node is left, and one at most where one is come to
    found.path = <Turn *>malloc(n * sizeof(Turn))
    if found.place == NULL or found.order == NULL or found.steps == NULL or found.path == NULL:
        raise MemoryError(f"no room to search {n} nodes")
    return 0


cdef void release(Found *found) noexcept:
    free(found.place)
    free(found.order)
    free(found.steps)
    free(found.path)
