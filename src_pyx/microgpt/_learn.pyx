"""Learning the shape of a graph: the nodes below a span of operands, and an order for them.

The order is better than the one of the search. All that the search's order decides about the numbers is, for each node, in which
sequence the nodes that use it add to its gradient. Keeping these sequences, `arrange_runs` puts nodes that are alike next to each
other, for backward to go through them in one loop.
"""

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from microgpt._recall cimport (
    MOVES, NONE, Listed, Part, Run, Shape, Span, add_shape, begin_shape, extent, free_shape, span_count
)
from microgpt._tape cimport CUSTOM, DOT, LAST_BINARY, LAST_UNARY, LEAF, Node, Tape, listed_operands

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    void node_step(uint64_t *step, const void *before, const void *after)

cdef enum:
    MOST_NODES = 1 << 22            # of a shape
    MOST_LINKS = 1 << 24
    MOST_LISTED = 1 << 23           # operands in the pool

cdef uint32_t HEAD = UINT32_MAX - 1     # in place of `waits`: done, and the last node of its run
cdef uint32_t USED = UINT32_MAX - 1     # in place of `last`: an operand that is not of the shape
cdef uint32_t BROKEN = UINT32_MAX       # in place of `unit`: an operand that is used in different spans

cdef struct Draft:                  # of a shape. `id`, and all arrays that `rank` begins, are owned by `learn`
    uint32_t nodes
    size_t listed                   # operands in the pool
    size_t links                    # at most, from the nodes to what backward comes to later
    uint32_t *id                    # of the nodes, in the order of the search
    uint32_t *rank                  # their places there, in the new order
    uint32_t *waits                 # how many nodes backward must come to before this one
    uint32_t *heap                  # nodes that wait for none, the highest first
    uint32_t heap_length
    uint32_t *offset                # where the links of each node begin in `then`; the last one: where they end
    uint32_t *then                  # the place that waits for the node
    Span *met                       # the nodes and their operands, each once
    uint32_t met_length
    uint32_t *place                 # by id: one more than the place in `id`, 0 for nodes that are not of the shape
    uint32_t *last                  # by id: one more than the place that adds to its gradient last, so far; later USED
    uint32_t *unit                  # by id: the first of the operands that are only used together, as one span; 0 if not used

# Owned here, for the life of the process: room for `place`, `last` and `unit`, all 0 outside of `learn`. So a shape is learnt in
# time by its own size alone. Pages of ids that are never met are never touched.
cdef uint32_t *by_id = NULL
cdef size_t by_id_room = 0


cdef void learn(Tape *t, uint32_t start, uint32_t n, size_t size, const Run *order, size_t runs) noexcept:
    """Keep the shape of the nodes in `order`: all that was UNSEEN below [start, start + n), as the search came to it.

    Without memory for it nothing happens.
    """
    cdef Draft d
    cdef uint32_t k
    begin_shape()
    memset(&d, 0, sizeof(Draft))
    if list_nodes(t, &d, order, runs):
        find_units(t, &d)
        if make_room(&d):
            find_waits(t, &d)
            arrange_runs(t, &d)
            keep(t, &d, start, n, size)
            for k in range(d.met_length):
                forget_ids(&d, d.met[k])
        else:
            forget_operands(t, &d)
    free(d.id)
    free(d.rank)


cdef inline void forget_ids(Draft *d, Span ids) noexcept:
    memset(&d.place[ids.start], 0, ids.n * sizeof(uint32_t))
    memset(&d.last[ids.start], 0, ids.n * sizeof(uint32_t))
    memset(&d.unit[ids.start], 0, ids.n * sizeof(uint32_t))


cdef bint list_nodes(Tape *t, Draft *d, const Run *order, size_t runs) noexcept:
    global by_id, by_id_room
    cdef size_t nodes = 0
    cdef size_t k
    cdef uint32_t i
    for k in range(runs):
        nodes += order[k].count
        for i in range(order[k].first, order[k].first + order[k].count):
            d.listed += listed_operands(&t.node[i])
            if t.node[i].op == CUSTOM:
                return False
    if nodes > MOST_NODES or d.listed > MOST_LISTED:
        return False
    if by_id_room < t.top:
        free(by_id)
        by_id_room = t.top + t.top // 2
        by_id = <uint32_t *>calloc(3 * by_id_room, sizeof(uint32_t))
    d.id = <uint32_t *>malloc(nodes * sizeof(uint32_t))
    if by_id == NULL or d.id == NULL:
        by_id_room = 0 if by_id == NULL else by_id_room
        return False
    d.place = by_id
    d.last = by_id + by_id_room
    d.unit = by_id + 2 * by_id_room
    for k in range(runs):
        for i in range(order[k].first, order[k].first + order[k].count):
            d.id[d.nodes] = i
            d.nodes += 1
            d.place[i] = d.nodes
    return True


cdef enum Kind:
    INSIDE
    OUTSIDE
    LEAVES


cdef inline Kind kind_of(Tape *t, Draft *d, uint32_t i) noexcept:
    if d.place[i] != 0:
        return INSIDE
    return LEAVES if t.node[i].op == LEAF else OUTSIDE


cdef inline Span operand_span(Tape *t, const Node *node, uint32_t k) noexcept:
    if node.op > DOT:
        return Span(t.pool[node.a + k], 1)
    return Span(node.a if k == 0 else node.argument.pair.b, extent(node))


cdef void find_units(Tape *t, Draft *d) noexcept:
    """Find the operands that are only used together, such as the rows of a matrix or what a matrix is multiplied with. What holds
    for one of them holds for all, so that a product is learnt in time by its rows, not by its multiplications.
    """
    cdef const Node *node
    cdef uint32_t i, k
    for i in range(d.nodes):
        node = &t.node[d.id[i]]
        for k in range(span_count(node)):
            add_unit(t, d, operand_span(t, node, k))
    d.links += d.nodes              # `find_waits` links each node to its first user, and all other uses to the one before
    for i in range(d.nodes):
        node = &t.node[d.id[i]]
        for k in range(span_count(node)):
            d.links += 1 if is_unit(d, operand_span(t, node, k)) else extent(node)


cdef inline bint is_unit(Draft *d, Span span) noexcept:
    """Whether an operand span is a unit, else its operands are used in different ones."""
    return d.unit[span.start] == span.start


cdef inline void add_unit(Tape *t, Draft *d, Span span) noexcept:
    cdef uint32_t end = span.start + span.n
    cdef uint32_t k
    cdef bint whole = True
    if is_unit(d, span) and d.unit[end - 1] == span.start and d.unit[end] != span.start:
        return
    for k in range(span.start, end):
        whole &= (d.unit[k] == 0 or FAULT(b"learn: a unit is one span")) and kind_of(t, d, k) == kind_of(t, d, span.start)
        if d.unit[k] != 0:
            break_unit(d, d.unit[k])
    for k in range(span.start, end):
        d.unit[k] = span.start if whole else BROKEN


cdef void break_unit(Draft *d, uint32_t unit) noexcept:
    cdef uint32_t k = unit
    while unit != BROKEN and d.unit[k] == unit:
        d.unit[k] = BROKEN
        k += 1


cdef void forget_operands(Tape *t, Draft *d) noexcept:
    cdef const Node *node
    cdef uint32_t i, k
    for i in range(d.nodes):
        node = &t.node[d.id[i]]
        forget_ids(d, Span(d.id[i], 1))
        for k in range(span_count(node)):
            forget_ids(d, operand_span(t, node, k))


cdef bint make_room(Draft *d) noexcept:
    cdef size_t words = 4 * <size_t>d.nodes + 1 + d.links
    if d.links > MOST_LINKS:
        return False
    d.rank = <uint32_t *>malloc(words * sizeof(uint32_t) + (d.nodes + d.links) * sizeof(Span))
    if d.rank == NULL:
        return False
    d.waits = d.rank + d.nodes
    d.heap = d.waits + d.nodes
    d.offset = d.heap + d.nodes
    d.then = d.offset + d.nodes + 1
    d.met = <Span *>(d.rank + words)
    return True


cdef inline void add_met(Draft *d, Span ids) noexcept:
    d.met[d.met_length] = ids
    d.met_length += 1


cdef void find_waits(Tape *t, Draft *d) noexcept:
    """Find what the order must keep: the users of a node add to its gradient one after the other, and it is due after them."""
    cdef const Node *node
    cdef Span span
    cdef uint32_t i, k, then
    cdef uint32_t links = 0
    for i in range(d.nodes):
        add_met(d, Span(d.id[i], 1))
        d.waits[i] = 0
    for i in range(d.nodes):                            # in the order of the search, which backward goes from the end
        node = &t.node[d.id[i]]
        d.offset[i] = links
        for k in range(span_count(node)):
            span = operand_span(t, node, k)
            if is_unit(d, span):
                links = use_span(d, links, i, span)
            else:
                for then in range(span.start, span.start + span.n):
                    links = use_span(d, links, i, Span(then, 1))
    d.offset[d.nodes] = links


cdef inline uint32_t use_span(Draft *d, uint32_t links, uint32_t i, Span span) noexcept:
    """Link the i-th node to the one that used the span before, or if there is none to the nodes of the span."""
    cdef uint32_t then = d.last[span.start]
    cdef uint32_t k
    d.last[span.start] = i + 1
    if then == i + 1:                                   # the same operand again
        return links
    if then != 0:
        return links if FAULT(b"learn: users stay in sequence") else add_link(d, links, then - 1)
    if d.place[span.start] == 0:
        add_met(d, span)
        return links
    for k in range(span.start, span.start + span.n):
        links = add_link(d, links, d.place[k] - 1)
    return links


cdef inline uint32_t add_link(Draft *d, uint32_t links, uint32_t then) noexcept:
    d.then[links] = then
    d.waits[then] += 1
    return links + 1


cdef void arrange_runs(Tape *t, Draft *d) noexcept:
    """Fill `rank` from its end with the nodes as backward may come to them: while it can it goes on to the node below, if that
    is alike, else to the highest of those that wait for none. Where only leaves are used, such as rows for tokens, it goes on as
    the search did: that two of them follow each other on the tape may be chance.
    """
    cdef uint32_t i, k, id, then
    cdef uint32_t done = 0
    cdef uint32_t head = 0              # the run that ends with the node of before: its first and highest id,
    cdef uint32_t highest = 0           # and the highest of its operands
    for i in range(d.nodes):
        if d.waits[i] == 0:
            push(d, i)
    i = NONE
    while done < d.nodes:
        id = d.id[i] - 1 if i != NONE else 0
        if i != NONE and (highest < id or FAULT(b"learn: no node of a run uses another")) and (
                d.place[id] != 0 and d.waits[d.place[id] - 1] == 0 and goes_on(t, head, id)) and (
                d.place[id] == i or not uses_leaves_only(t, id)):
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
        highest = max(highest, highest_operand(t, id))
        for k in range(d.offset[i], d.offset[i + 1]):
            then = d.then[k]
            d.waits[then] -= 1
            if d.waits[then] == 0:
                push(d, then)


cdef bint uses_leaves_only(Tape *t, uint32_t id) noexcept:
    """Whether the operands of a node are leaves, judged by the first of each span and by the first two that are listed."""
    cdef const Node *node = &t.node[id]
    cdef uint32_t k
    for k in range(min(2, span_count(node))):
        if t.node[operand_span(t, node, k).start].op != LEAF:
            return False
    return True


cdef uint32_t highest_operand(Tape *t, uint32_t id) noexcept:
    cdef Span span
    cdef uint32_t highest = 0
    cdef uint32_t k
    for k in range(span_count(&t.node[id])):
        span = operand_span(t, &t.node[id], k)
        highest = max(highest, span.start + span.n - 1)
    return highest


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


cdef void keep(Tape *t, Draft *d, uint32_t start, uint32_t n, size_t size) noexcept:
    """Keep the shape of the draft."""
    cdef Shape shape
    memset(&shape, 0, sizeof(Shape))
    shape.n = n
    shape.size = <uint32_t>size
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
    cdef uint32_t placed = 0            # one more than the place in the search's order of the last node of a loose run
    cdef uint32_t place
    for i in range(d.nodes):
        runs += d.waits[i] == HEAD
    shape.part = <Part *>malloc(runs * sizeof(Part))
    shape.listed = <Listed *>malloc(max(<size_t>1, d.listed) * sizeof(Listed))
    if shape.part == NULL or shape.listed == NULL:
        return False
    i = 0
    while i < d.nodes:
        part = &shape.part[shape.length]
        shape.length += 1
        part.first = d.id[d.rank[i]] - start
        part.count = 0
        part.listed = shape.listed_length
        # Loose runs stand in the order of the search, all their nodes: whichever leaves are their operands, as long as nothing
        # else of the shape uses them, the sequence of what uses them is the search's.
        part.loose = True
        place = placed
        while True:
            part.loose &= d.rank[i] >= place or FAULT(b"learn: loose runs stay as searched")
            place = d.rank[i] + 1
            part.count += 1
            i += 1
            if d.waits[d.rank[i - 1]] == HEAD:
                break
        if not write_operands(t, d, shape, part, start):
            return False
        if part.loose:
            placed = place
    return True


cdef inline uint32_t step_a(const Node *node, uint32_t count) noexcept:
    return node[1].a - node.a if count > 1 else 0


cdef inline uint32_t step_b(const Node *node, uint32_t count) noexcept:
    return node[1].argument.pair.b - node.argument.pair.b if count > 1 else 0


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
    if not listed and span_count(node) == 2 and t.node[node.argument.pair.b].op != LEAF:
        part.moves_b = MOVES
        part.b -= start
    part.loose &= not (listed or part.moves_a or part.moves_b or step_a(node, part.count) > extent(node))
    part.loose &= node.op <= LAST_UNARY or step_b(node, part.count) <= extent(node)     # no span with gaps, or that goes down
    for i in range(start + part.first, start + part.first + part.count):
        if listed:
            for k in range(listed_operands(&t.node[i])):
                child = t.pool[t.node[i].a + k]
                moves = t.node[child].op != LEAF
                shape.listed[shape.listed_length].id = child - start if moves else child
                shape.listed[shape.listed_length].moves = MOVES if moves else 0
                shape.listed_length += 1
                write_use_of(d, child, part.loose)
            continue
        node = &t.node[i]
        if not write_use(t, d, operand_span(t, node, 0), part.moves_a, part.loose):
            return False
        if span_count(node) == 2 and (i == start + part.first or node.argument.pair.b != node[-1].argument.pair.b) and (
                not write_use(t, d, operand_span(t, node, 1), part.moves_b, part.loose)):
            return False
    return True


cdef inline void write_use_of(Draft *d, uint32_t id, bint loose) noexcept:
    if d.place[id] == 0 and not loose:
        d.last[id] = USED


cdef bint write_use(Tape *t, Draft *d, Span span, uint32_t moves, bint loose) noexcept:
    """Mark a span of operands as USED. False if it has both leaves and computed nodes."""
    cdef uint32_t k
    cdef uint32_t n = 1 if is_unit(d, span) else span.n
    for k in range(span.start, span.start + n):
        if (t.node[k].op != LEAF) != (moves == MOVES):
            return False
        write_use_of(d, k, loose)
    return True


cdef int by_start(const void *a, const void *b) noexcept nogil:
    cdef uint32_t x = (<const Span *>a).start
    cdef uint32_t y = (<const Span *>b).start
    return (x > y) - (x < y)


cdef bint write_spans(Tape *t, Draft *d, Shape *shape, uint32_t start) noexcept:
    """Write which ids the nodes of the shape have, and which ones operands that are not of it, but for those of loose runs."""
    cdef uint32_t i, id
    cdef Kind kind
    cdef uint32_t pieces = 1
    qsort(d.met, d.met_length, sizeof(Span), by_start)
    for i in range(1, d.met_length):
        id = d.met[i].start
        pieces += id != d.met[i - 1].start + d.met[i - 1].n or kind_of(t, d, id) != kind_of(t, d, d.met[i - 1].start) or (
            (d.last[id] == USED) != (d.last[d.met[i - 1].start] == USED))
    shape.pieces = pieces
    shape.inside = <Span *>malloc(pieces * sizeof(Span))
    shape.outside = <Span *>malloc(pieces * sizeof(Span))
    shape.leaves = <Span *>malloc(pieces * sizeof(Span))
    if shape.inside == NULL or shape.outside == NULL or shape.leaves == NULL:
        return False
    for i in range(d.met_length):
        id = d.met[i].start
        kind = kind_of(t, d, id)
        if kind == INSIDE:
            add_to_span(shape.inside, &shape.inside_length, id - start, d.met[i].n)
        elif d.last[id] == USED and kind == OUTSIDE:
            add_to_span(shape.outside, &shape.outside_length, id - start, d.met[i].n)
        elif d.last[id] == USED:
            add_to_span(shape.leaves, &shape.leaves_length, id, d.met[i].n)
    return True


cdef inline void add_to_span(Span *spans, uint32_t *length, uint32_t id, uint32_t n) noexcept:
    """Add ids to the last span, or a span of their own."""
    if length[0] > 0 and spans[length[0] - 1].start + spans[length[0] - 1].n == id:
        spans[length[0] - 1].n += n
        return
    spans[length[0]] = Span(id, n)
    length[0] += 1
