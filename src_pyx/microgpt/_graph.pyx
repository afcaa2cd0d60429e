"""Topological order and backward.

The order is the reference's: depth-first from the root over children in constructor order, each node after its children,
then walked from its end. Sums of floats depend on their order, so every gradient agrees to the last bit.

A sum or dot is one node here and a chain of additions in the reference, ((0 + p0) + p1) + ...: there, all that is first
reached through operand k lies between p[k-1] and p[k] in the order. That shows only when something in between uses an operand
passed before (tied weights do). So the first search treats a sum as one entry and, while it is below operand k, marks the
operands before k as OPEN; a node that uses an OPEN operand ends the search, and a second one splits sums into the segments of
the reference. Leaves and seen spans cost one look at eight marks.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free

from microgpt._ops cimport name_of, operand, operand_count, propagate, reads_operands
from microgpt._tape cimport (
    CUSTOM, DOT, DOT_LISTED, LAST_BINARY, LAST_UNARY, LEAF, OPEN, SEEN, SUM, UNSEEN, Node, Tape, reallocate, written
)

cdef extern from "kernels.h" nogil:
    size_t count_seen(const uint8_t *p, size_t n)

cdef struct Step:
    uint32_t id                     # a node on the path from the root to where the search is
    uint32_t next                   # the operand to look at next; those before are OPEN

cdef struct Segment:
    uint32_t low                    # operands [low, high) of a sum or dot
    uint32_t high

cdef struct Search:
    uint32_t *order                 # the nodes, each after its children
    Segment *segment                # of each entry of `order`, where sums are split
    size_t length
    Step *path
    size_t depth
    size_t room                     # ids that fit into `order` and `path`; owner: this module, freed by `end` where large
    size_t segment_room

cdef Search search

cdef enum:
    BETWEEN_SIGNALS = 1 << 16       # nodes or turns, about a millisecond, between two looks at pending signals
    LARGE = 1 << 20                 # nodes whose scratch is not kept for the next search


cdef int make_room(size_t n, bint split) except -1:
    """Make room for a search below id `n`. Pages that the search does not reach are never touched."""
    n *= 2                          # split sums: an entry per node and one per node that is first reached from a sum
    if n > search.room:
        reallocate(<void **>&search.order, n, sizeof(uint32_t))
        reallocate(<void **>&search.path, n // 2, sizeof(Step))
        search.room = n
    if split and n > search.segment_room:
        reallocate(<void **>&search.segment, n, sizeof(Segment))
        search.segment_room = n
    return 0


cdef inline void ascend(uint32_t low, uint32_t high, bint split) noexcept nogil:
    """Leave the node at the end of the path: it follows its children in the order."""
    search.depth -= 1
    add(search.path[search.depth].id, low, high, split)


cdef inline void add(uint32_t id, uint32_t low, uint32_t high, bint split) noexcept nogil:
    search.order[search.length] = id
    if split:
        search.segment[search.length].low = low
        search.segment[search.length].high = high
    search.length += 1


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


cdef inline uint32_t skip_seen(Tape *t, uint32_t i, uint32_t k) noexcept nogil:
    """Return the first operand (or pair) at or after `k` of node `i` that is not just SEEN, or their number."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t n = operands(t, i)
    cdef uint32_t unseen
    if op == SUM:
        return k + <uint32_t>count_seen(&t.seen[t.node[i].a + k], n - k)
    if op == DOT:   # first operands no further than seconds: else new seconds, met one by one, rescan all first ones each time
        unseen = k + <uint32_t>count_seen(&t.seen[t.node[i].argument.pair.b + k], n - k)
        return min(unseen, k + <uint32_t>count_seen(&t.seen[t.node[i].a + k], min(unseen + 1, n) - k))
    while k < n and t.seen[first(t, i, k)] == SEEN and t.seen[second(t, i, k)] == SEEN:
        k += 1
    return k


cdef inline void descend(Tape *t, uint32_t id, bint split) noexcept nogil:
    """Go to node `id`; one whose operands are all SEEN goes straight into the order."""
    cdef const Node *node = &t.node[id]
    t.seen[id] = SEEN
    if node.op <= LAST_BINARY:
        if t.seen[node.a] == SEEN and (node.op <= LAST_UNARY or t.seen[node.argument.pair.b] == SEEN):
            add(id, 0, 0, split)
            return
    elif skip_seen(t, id, 0) == node.argument.pair.n:
        add(id, 0, node.argument.pair.n, split)
        return
    search.path[search.depth].id = id
    search.path[search.depth].next = 0
    search.depth += 1


cdef inline void mark(Tape *t, uint32_t i, uint32_t low, uint32_t high, uint8_t seen) noexcept nogil:
    """Mark the operands numbered [low, high) of a sum or dot."""
    cdef uint32_t k
    for k in range(low, high):
        t.seen[first(t, i, k)] = seen
        t.seen[second(t, i, k)] = seen


cdef int visit(Tape *t, uint32_t root, bint split) except -1:
    """Fill `search.order` with the computed nodes that `root` reaches. Return 0 where sums must be split and are not, else 1."""
    cdef Step *step
    cdef const Node *node
    cdef uint32_t i, k, child
    cdef uint8_t op
    cdef size_t turns = 0
    search.length = 0
    search.depth = 0
    if t.node[root].op == LEAF:
        return True
    descend(t, root, split)
    while search.depth > 0:
        turns += 1
        if turns % BETWEEN_SIGNALS == 0:
            PyErr_CheckSignals()
        step = &search.path[search.depth - 1]
        i = step.id
        node = &t.node[i]
        op = node.op
        if op <= LAST_BINARY:
            child = node.a
            if t.seen[child] == SEEN and op > LAST_UNARY:
                child = node.argument.pair.b
            if t.seen[child] == UNSEEN:
                descend(t, child, split)
                continue
            if t.seen[child] == OPEN:
                return False
            ascend(0, 0, split)
            continue
        k = skip_seen(t, i, step.next)
        if k == operands(t, i):
            if op == CUSTOM:
                ascend(0, k, split)
            elif split:
                ascend(step.next, k, split)
            else:
                mark(t, i, 0, step.next, SEEN)
                ascend(0, k, split)
            continue
        child = first(t, i, k)
        if t.seen[child] == SEEN:
            child = second(t, i, k)
        if t.seen[child] == OPEN:
            return False
        if op != CUSTOM and k > step.next:
            if split:
                add(i, step.next, k, split)
            else:
                mark(t, i, step.next, k, OPEN)
        step.next = k
        descend(t, child, split)
    return True


cdef void forget(Tape *t) noexcept nogil:
    """Take back every mark of the last search, finished or not."""
    cdef size_t k
    cdef uint32_t i
    for k in range(search.depth):
        i = search.path[k].id
        if t.node[i].op > LAST_BINARY and t.node[i].op != CUSTOM:
            mark(t, i, 0, search.path[k].next, SEEN)
    for k in range(search.depth):
        t.seen[search.path[k].id] = UNSEEN
    for k in range(search.length):
        t.seen[search.order[k]] = UNSEEN


cdef int arrange(Tape *t, uint32_t root) except -1:
    """Order the nodes that `root` reaches. Return whether sums are split into segments."""
    make_room(<size_t>root + 1, False)
    if visit(t, root, False):
        return 0
    forget(t)
    make_room(<size_t>root + 1, True)
    visit(t, root, True)
    return 1


cdef bint is_stale(Tape *t, uint32_t i) noexcept nogil:
    """Whether a leaf that node `i` needs for its partials was written after the node was made."""
    cdef uint32_t k
    cdef uint8_t op = t.node[i].op
    if not reads_operands(op):
        return False
    if op <= LAST_UNARY:
        return written_after(t, t.node[i].a, i)
    if op <= LAST_BINARY:
        return written_after(t, t.node[i].a, i) or written_after(t, t.node[i].argument.pair.b, i)
    for k in range(operands(t, i)):
        if written_after(t, first(t, i, k), i) or written_after(t, second(t, i, k), i):
            return True
    return False


cdef inline bint written_after(Tape *t, uint32_t child, uint32_t i) noexcept nogil:
    return t.node[child].op == LEAF and written(t, t.node[child].argument.stamp) > i


cdef int refuse_stale(Tape *t, uint32_t i) except -1:
    """Raise if a partial of node `i` would be computed from a leaf that changed since."""
    if is_stale(t, i):
        raise RuntimeError(f"a leaf used by `{name_of(t.node[i].op)}` was changed after it was used: compute the result again, "
                           "then ask for its gradients")
    return 0


cdef int refuse_any_stale(Tape *t) except -1:
    """Raise if a node of the order is stale. Only nodes older than the last write are looked at."""
    cdef uint32_t last_write = t.write_top[t.writes - 1] if t.writes > 0 else 0
    cdef size_t k
    for k in range(search.length):
        if search.order[k] < last_write:
            refuse_stale(t, search.order[k])
    return 0


cdef int backward(Tape *t, uint32_t root) except -1:
    """Add d(root)/d(node) to the grad of every node that `root` reaches. The grad of root itself becomes 1."""
    begin(t)
    try:
        propagate_all(t, root, arrange(t, root))
    finally:
        end(t)
    return 0


cdef int propagate_all(Tape *t, uint32_t root, bint split) except -1:
    cdef size_t k
    cdef uint32_t i
    refuse_any_stale(t)
    t.grad[root] = 1.0
    for k in range(search.length, 0, -1):
        if k % BETWEEN_SIGNALS == 0:
            PyErr_CheckSignals()
        i = search.order[k - 1]
        if split:
            propagate(t, i, search.segment[k - 1].low, search.segment[k - 1].high)
        else:
            propagate(t, i, 0, operands(t, i))
    return 0


cdef int zero_grad(Tape *t, uint32_t root) except -1:
    """Set the grad of every node that `root` reaches to 0."""
    cdef size_t k
    cdef uint32_t i, j
    begin(t)
    try:
        arrange(t, root)
        t.grad[root] = 0.0
        for k in range(search.length):
            i = search.order[k]
            for j in range(operand_count(t, i)):
                t.grad[operand(t, i, j)] = 0.0
    finally:
        end(t)
    return 0


cdef int begin(Tape *t) except -1:
    """Start a search: until its end ids stay as they are, though a signal handler may run Python code in the middle."""
    if t.fixed:
        raise RuntimeError("another backward() or zero_grad() is still running")
    t.fixed = True
    search.length = 0
    search.depth = 0
    return 0


cdef void end(Tape *t) noexcept:
    """End a search, complete or interrupted: take back its marks and free scratch that is large."""
    global search
    forget(t)
    t.fixed = False
    if search.room > LARGE:
        free(search.order)
        free(search.path)
        free(search.segment)
        search = Search(NULL, NULL, 0, NULL, 0, 0, 0)
