"""Learning the shape of a graph: the nodes below a span of operands, and an order for them.

The order is better than the one of the search. All that the search's order decides about the numbers is, for each node, in which
sequence the nodes that use it add to its gradient. Keeping these sequences, `arrange_runs` puts nodes that are alike next to each
other, for backward to go through them in one loop.
"""

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from microgpt._ops cimport operand, operand_count
from microgpt._recall cimport (
    MOVES, NONE, Listed, Part, Run, Shape, Span, add_shape, extent, free_shape, listed_operands, step_a, step_b
)
from microgpt._tape cimport CUSTOM, DOT, LAST_BINARY, LAST_UNARY, LEAF, SUM, Node, Tape

cdef extern from "kernels.h" nogil:
    void node_step(uint64_t *step, const void *before, const void *after)

cdef enum:
    MOST_OPERANDS = 1 << 22         # of a shape
    MOST_LISTED = 1 << 18           # of these operands

cdef uint32_t HEAD = UINT32_MAX - 1     # in place of `waits`: done, and the last node of its run
cdef uint32_t USED = UINT32_MAX - 1     # in place of `last`: an operand that is not of the shape

cdef struct Draft:                  # of a shape. Its arrays are one allocation, owned by `learn`, which `id` begins
    uint32_t nodes
    uint32_t listed                 # operands in the pool
    uint32_t *id                    # of the nodes, in the order of the search
    uint32_t *rank                  # their places there, in the new order
    uint32_t *waits                 # how many nodes backward must come to before this one
    uint32_t *offset                # where the operands of each begin in `then`
    uint32_t *heap                  # nodes that wait for none, the highest first
    uint32_t heap_length
    uint32_t *then                  # for each operand of each node: the place that waits for the node, or NONE
    uint32_t *met                   # ids of the nodes and of their operands, each once
    uint32_t met_length
    uint32_t *place                 # by id: one more than the place in `id`, 0 for nodes that are not of the shape
    uint32_t *last                  # by id: one more than the place that adds to its gradient last, so far; later USED

# Owned here, for the life of the process: room for `place` and `last`, all 0 outside of `learn`. So a shape is learnt in time by
# its own size alone. Pages of ids that are never met are never touched.
cdef uint32_t *by_id = NULL
cdef size_t by_id_room = 0


cdef void learn(Tape *t, uint32_t start, uint32_t n, const Run *order, size_t runs) noexcept:
    """Keep the shape of the nodes in `order`: all that was UNSEEN below [start, start + n), as the search came to it.

    Without memory for it nothing happens.
    """
    cdef Draft d
    cdef uint32_t k
    memset(&d, 0, sizeof(Draft))
    if begin_draft(t, &d, order, runs):
        find_waits(t, &d)
        arrange_runs(t, &d)
        keep(t, &d, start, n)
        for k in range(d.met_length):
            d.place[d.met[k]] = d.last[d.met[k]] = 0
    free(d.id)


cdef bint begin_draft(Tape *t, Draft *d, const Run *order, size_t runs) noexcept:
    global by_id, by_id_room
    cdef size_t k
    cdef size_t operands = 0
    cdef size_t listed = 0
    cdef uint32_t i
    for k in range(runs):
        d.nodes += order[k].count
        for i in range(order[k].first, order[k].first + order[k].count):
            operands += operand_count(t, i)
            listed += listed_operands(&t.node[i])
            if t.node[i].op == CUSTOM:
                return False
    if operands > MOST_OPERANDS or listed > MOST_LISTED:
        return False
    if by_id_room < t.top:
        free(by_id)
        by_id_room = t.top + t.top // 2
        by_id = <uint32_t *>calloc(2 * by_id_room, sizeof(uint32_t))
    d.id = <uint32_t *>malloc((6 * <size_t>d.nodes + 2 * operands) * sizeof(uint32_t))
    if by_id == NULL or d.id == NULL:
        by_id_room = 0 if by_id == NULL else by_id_room
        return False
    d.listed = <uint32_t>listed
    d.place = by_id
    d.last = by_id + by_id_room
    d.rank = d.id + d.nodes
    d.waits = d.rank + d.nodes
    d.offset = d.waits + d.nodes
    d.heap = d.offset + d.nodes
    d.met = d.heap + d.nodes
    d.then = d.met + d.nodes + operands
    d.nodes = 0
    for k in range(runs):
        for i in range(order[k].first, order[k].first + order[k].count):
            d.id[d.nodes] = i
            d.met[d.nodes] = i
            d.nodes += 1
            d.place[i] = d.nodes
    d.met_length = d.nodes
    return True


cdef void find_waits(Tape *t, Draft *d) noexcept:
    """Find what the order must keep: the users of a node add to its gradient one after the other, and it is due after them."""
    cdef uint32_t i, k, child, then
    cdef uint32_t operands = 0
    for i in range(d.nodes):
        d.last[d.id[i]] = d.place[d.id[i]]              # a node of the shape is due last
        d.waits[i] = 0
    for i in range(d.nodes):                            # in the order of the search, which backward goes from the end
        d.offset[i] = operands
        for k in range(operand_count(t, d.id[i])):
            child = operand(t, d.id[i], k)
            then = d.last[child]
            d.last[child] = i + 1
            if then == 0:
                d.met[d.met_length] = child
                d.met_length += 1
            if then == 0 or then == i + 1:              # none, or the same operand again
                d.then[operands] = NONE
            else:
                d.then[operands] = then - 1
                d.waits[then - 1] += 1
            operands += 1


cdef void arrange_runs(Tape *t, Draft *d) noexcept:
    """Fill `rank` from its end with the nodes as backward may come to them: while it can it goes on to the node below, if that
    is alike, else to the highest of those that wait for none.
    """
    cdef uint32_t i, k, id
    cdef uint32_t done = 0
    cdef uint32_t head = 0              # the run that ends with the node of before: its first and highest id,
    cdef uint32_t highest = 0           # and the highest of its operands
    for i in range(d.nodes):
        if d.waits[i] == 0:
            push(d, i)
    i = NONE
    while done < d.nodes:
        id = d.id[i] - 1 if i != NONE else 0
        if i != NONE and highest < id and d.place[id] != 0 and d.waits[d.place[id] - 1] == 0 and goes_on(t, head, id):
            i = d.place[id] - 1
        else:
            i = pop(d)
            while d.waits[i] != 0:      # done as part of a run
                i = pop(d)
            head = d.id[i]
            highest = 0
        id = d.id[i]
        done += 1
        d.rank[d.nodes - done] = i
        d.waits[i] = HEAD if id == head else NONE
        for k in range(operand_count(t, id)):
            highest = max(highest, operand(t, id, k))
            if d.then[d.offset[i] + k] != NONE:
                d.waits[d.then[d.offset[i] + k]] -= 1
                if d.waits[d.then[d.offset[i] + k]] == 0:
                    push(d, d.then[d.offset[i] + k])


cdef bint goes_on(Tape *t, uint32_t head, uint32_t id) noexcept:
    """Whether node `id` and those up to `head`, which are a run or one node, make a run that backward has a loop for."""
    cdef const Node *node = &t.node[id]
    cdef uint32_t a = node[1].a - node.a
    cdef uint32_t b = node[1].argument.pair.b - node.argument.pair.b
    cdef uint64_t first[2]
    cdef uint64_t second[2]
    if node[1].op != node.op:
        return False
    if head > id + 1:
        node_step(first, node, &node[1])
        node_step(second, &node[1], &node[2])
        if first[0] != second[0] or first[1] != second[1]:
            return False
    if node.op <= LAST_UNARY:
        return both_leaves_or_none(t, node.a, a) and node[1].argument.stamp == node.argument.stamp
    if node.op <= LAST_BINARY:
        return a <= 1 and b <= 1 and both_leaves_or_none(t, node.a, a) and both_leaves_or_none(t, node.argument.pair.b, b)
    return node[1].argument.pair.n == node.argument.pair.n and (
        node.op != DOT or (a == node.argument.pair.n and (b == 0 or b == a)))


cdef inline bint both_leaves_or_none(Tape *t, uint32_t child, uint32_t step) noexcept:
    return (t.node[child].op == LEAF) == (t.node[child + step].op == LEAF)


cdef void push(Draft *d, uint32_t i) noexcept:
    cdef uint32_t k = d.heap_length
    cdef uint32_t parent
    while k > 0:
        parent = (k - 1) // 2
        if d.id[d.heap[parent]] > d.id[i]:
            break
        d.heap[k] = d.heap[parent]
        k = parent
    d.heap[k] = i
    d.heap_length += 1


cdef uint32_t pop(Draft *d) noexcept:
    cdef uint32_t top = d.heap[0]
    cdef uint32_t i, child
    cdef uint32_t k = 0
    d.heap_length -= 1
    i = d.heap[d.heap_length]
    while 2 * k + 1 < d.heap_length:
        child = 2 * k + 1
        if child + 1 < d.heap_length and d.id[d.heap[child + 1]] > d.id[d.heap[child]]:
            child += 1
        if d.id[d.heap[child]] < d.id[i]:
            break
        d.heap[k] = d.heap[child]
        k = child
    d.heap[k] = i
    return top


cdef void keep(Tape *t, Draft *d, uint32_t start, uint32_t n) noexcept:
    """Keep the shape of the draft."""
    cdef Shape shape
    memset(&shape, 0, sizeof(Shape))
    shape.n = n
    shape.nodes = d.nodes
    if write_parts(t, d, &shape, start) and write_spans(t, d, &shape, start):
        add_shape(&shape)
    else:
        free_shape(&shape)


cdef bint write_parts(Tape *t, Draft *d, Shape *shape, uint32_t start) noexcept:
    """Write the runs of the new order. False if a span of operands has both leaves and computed nodes, or without memory."""
    cdef Part *part
    cdef uint32_t i
    cdef uint32_t runs = 0
    cdef uint32_t placed = 0            # one more than the highest place in the search's order of the nodes so far
    for i in range(d.nodes):
        runs += d.waits[i] == HEAD
    shape.part = <Part *>malloc(runs * sizeof(Part))
    shape.listed = <Listed *>malloc(max(1, d.listed) * sizeof(Listed))
    if shape.part == NULL or shape.listed == NULL:
        return False
    i = 0
    while i < d.nodes:
        part = &shape.part[shape.length]
        shape.length += 1
        part.first = d.id[d.rank[i]] - start
        part.count = 0
        part.listed = shape.listed_length
        # A loose run stands as the search had it, all that is before it being before it there, and so behind it: whichever leaves
        # are its operands, as long as nothing else of the shape uses them, the sequence of what uses them is the search's.
        part.loose = placed == i
        while True:
            part.loose &= d.rank[i] == i
            placed = max(placed, d.rank[i] + 1)
            part.count += 1
            i += 1
            if d.waits[d.rank[i - 1]] == HEAD:
                break
        if not write_operands(t, d, shape, part, start):
            return False
    return True


cdef bint write_operands(Tape *t, Draft *d, Shape *shape, Part *part, uint32_t start) noexcept:
    """Write what the operands of a run are, and mark those as USED that are not of the shape, but for those of a loose run."""
    cdef const Node *node = &t.node[start + part.first]
    cdef uint32_t i, k, child
    cdef bint moves
    cdef bint listed = node.op > DOT
    part.op = node.op
    part.a = node.a
    part.b = node.argument.pair.b
    part.n = node.argument.pair.n
    part.step[0] = part.step[1] = 0
    if part.count > 1:
        node_step(part.step, node, &node[1])
    part.moves_a = part.moves_b = 0
    if not listed and t.node[node.a].op != LEAF:
        part.moves_a = MOVES
        part.a -= start
    if not listed and node.op > LAST_UNARY and node.op != SUM and t.node[node.argument.pair.b].op != LEAF:
        part.moves_b = MOVES
        part.b -= start
    part.loose &= not (listed or part.moves_a or part.moves_b or step_a(node, part.count) > extent(node))
    part.loose &= node.op <= LAST_UNARY or step_b(node, part.count) <= extent(node)     # no span with gaps, or that goes down
    for i in range(start + part.first, start + part.first + part.count):
        for k in range(operand_count(t, i)):
            child = operand(t, i, k)
            moves = t.node[child].op != LEAF
            if listed:
                shape.listed[shape.listed_length].id = child - start if moves else child
                shape.listed[shape.listed_length].moves = MOVES if moves else 0
                shape.listed_length += 1
            elif moves != ((part.moves_b if k & 1 and node.op != SUM else part.moves_a) == MOVES):
                return False
            if d.place[child] == 0 and not part.loose:
                d.last[child] = USED
    return True


cdef enum Kind:
    ELSEWHERE
    INSIDE
    OUTSIDE
    OUTSIDE_LEAF


cdef inline Kind kind_of(Tape *t, Draft *d, uint32_t i) noexcept:
    if d.place[i] != 0:
        return INSIDE
    if d.last[i] != USED:
        return ELSEWHERE
    return OUTSIDE_LEAF if t.node[i].op == LEAF else OUTSIDE


cdef int by_number(const void *a, const void *b) noexcept nogil:
    cdef uint32_t x = (<const uint32_t *>a)[0]
    cdef uint32_t y = (<const uint32_t *>b)[0]
    return (x > y) - (x < y)


cdef bint write_spans(Tape *t, Draft *d, Shape *shape, uint32_t start) noexcept:
    """Write which ids the nodes of the shape have, and which ones operands that are not of it."""
    cdef uint32_t pieces = 1
    cdef uint32_t i, id
    cdef Kind kind
    qsort(d.met, d.met_length, sizeof(uint32_t), by_number)
    for i in range(1, d.met_length):
        pieces += d.met[i] != d.met[i - 1] + 1 or kind_of(t, d, d.met[i]) != kind_of(t, d, d.met[i - 1])
    shape.pieces = pieces
    shape.inside = <Span *>malloc(pieces * sizeof(Span))
    shape.outside = <Span *>malloc(pieces * sizeof(Span))
    shape.leaves = <Span *>malloc(pieces * sizeof(Span))
    if shape.inside == NULL or shape.outside == NULL or shape.leaves == NULL:
        return False
    for i in range(d.met_length):
        id = d.met[i]
        kind = kind_of(t, d, id)
        if kind == INSIDE:
            add_to_span(shape.inside, &shape.inside_length, id - start)
        elif kind == OUTSIDE:
            add_to_span(shape.outside, &shape.outside_length, id - start)
        elif kind == OUTSIDE_LEAF:
            add_to_span(shape.leaves, &shape.leaves_length, id)
    return True


cdef inline void add_to_span(Span *spans, uint32_t *length, uint32_t id) noexcept:
    """Add one id to the last span, or a span of its own."""
    if length[0] > 0 and spans[length[0] - 1].start + spans[length[0] - 1].n == id:
        spans[length[0] - 1].n += 1
        return
    spans[length[0]] = Span(id, 1)
    length[0] += 1
