"""Topological order.

The reference's order is depth-first from the root over children in constructor order, each node after its children, walked from
its end. The order here may be another, but to each node's gradient all contributions come in the reference's sequence. Sums of
floats depend on that alone, so every gradient agrees to the last bit.

A sum or dot is one node here and a chain of additions in the reference, ((0 + p0) + p1) + ...: there, all that is first
reached through operand k lies between p[k-1] and p[k] in the order. That shows only when something in between uses an operand
passed before (tied weights do). So the first search treats a sum as one entry and, while it is below operand k, marks the
operands before k as OPEN; a node that uses an OPEN operand ends the search, and a second one splits sums into the segments of
the reference. Leaves and seen spans cost one look at eight marks.

Nodes that follow each other on the tape and differ only by a step in their operands, such as those of an elementwise operation
or of the rows of a matrix, enter the order as one run, and backward goes through them in one loop (`take`). What a search finds
below a dot is recalled by the next ones (_recall.pyx, _learn.pyx).

The spans that the positions of a text end in follow each other. They are bundled: taken together, as if one sum used them all, so
that what is below all of them is one shape. The search would go from each to the next through the nodes above them. So once the
order is there, `stands_before` looks whether these nodes use anything that the shape has or uses, and whether the order, which
is the search's own from there on, comes to one span after the other; else the search is made again without a bundle. Where these
nodes are cross entropies (_entropies.pyx), nothing is left to look at.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memset

from microgpt._entropies cimport take_cross_entropies
from microgpt._learn cimport learn
from microgpt._ops cimport apart
from microgpt._recall cimport (
    Span, begin_recall, count_sight, give_up_bundle, is_worth_a_shape, latest_shape, may_bundle, recall, stands_before,
    was_learnt_in_vain
)
from microgpt._tape cimport (
    CUSTOM, DOT, DOT_LISTED, LAST_BINARY, LAST_UNARY, LEAF, OPEN, SEEN, SUM, UNSEEN, Node, Tape, reallocate
)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    size_t count_marks(const uint8_t *p, uint8_t mark, size_t n)
    size_t count_alike(const void *node, size_t n)

cdef enum:
    LARGE = 1 << 20                 # entries whose scratch is not kept for the next search


cdef int make_room(size_t n, bint split) except -1:
    """Make room for a search below id `n`. Pages that the search does not reach are never touched."""
    # Nodes are on the path or in the order, which grow towards each other. Split sums: two more, an entry per node and one per
    # node that is first reached from a sum.
    cdef size_t entries = 3 * n if split else n
    if entries > search.room:
        reallocate(<void **>&search.order, entries, sizeof(Run))
        search.room = entries
    if split and entries > search.segment_room:
        reallocate(<void **>&search.segment, entries, sizeof(Segment))
        search.segment_room = entries
    return 0


cdef inline Step *path(size_t depth) noexcept nogil:
    """The step at `depth` of the path, 0 that of the root: from the end of the array of the order, whose items are as large."""
    return <Step *>&search.order[search.room - 1 - depth]


cdef inline void append_run(uint32_t first, uint32_t count) noexcept nogil:
    search.order[search.length].first = first
    search.order[search.length].count = count
    search.length += 1


cdef inline void add_segment(uint32_t id, uint32_t low, uint32_t high, bint split) noexcept nogil:
    """Add operands [low, high) of a sum or dot; where sums are not split, these are all."""
    if split:
        search.segment[search.length].low = low
        search.segment[search.length].high = high
    append_run(id, 1)


cdef inline void ascend(uint32_t low, uint32_t high, bint split) noexcept nogil:
    """Leave the node at the end of the path: it follows its children in the order."""
    search.depth -= 1
    add_segment(path(search.depth).id, low, high, split)


cdef inline uint32_t skip_seen(Tape *t, uint32_t i, uint32_t k) noexcept nogil:
    """Return the first operand (or pair) at or after `k` of node `i` that is not just SEEN, or their number."""
    cdef uint8_t op = t.node[i].op
    cdef uint32_t n = operands(t, i)
    cdef uint32_t unseen
    if op == SUM:
        return k + <uint32_t>count_marks(&t.seen[t.node[i].a + k], SEEN, n - k)
    if op == DOT:   # first operands no further than seconds: else new seconds, met one by one, rescan all first ones each time
        unseen = k + <uint32_t>count_marks(&t.seen[t.node[i].argument.pair.b + k], SEEN, n - k)
        return min(unseen, k + <uint32_t>count_marks(&t.seen[t.node[i].a + k], SEEN, min(unseen + 1, n) - k))
    while k < n and t.seen[first(t, i, k)] == SEEN and t.seen[second(t, i, k)] == SEEN:
        k += 1
    return k


cdef inline bint descend(Tape *t, uint32_t id, bint split) noexcept nogil:
    """Go to node `id`. Return whether it went straight into the order, its operands being all SEEN."""
    cdef const Node *node = &t.node[id]
    t.seen[id] = SEEN
    if node.op <= LAST_BINARY:
        if node.op == LEAF or (         # a leaf is come to only for its own `_backward`
                t.seen[node.a] == SEEN and (node.op <= LAST_UNARY or t.seen[node.argument.pair.b] == SEEN)):
            add_segment(id, 0, 0, split)
            return True
    elif skip_seen(t, id, 0) == node.argument.pair.n:
        add_segment(id, 0, node.argument.pair.n, split)
        return True
    path(search.depth).id = id
    path(search.depth).next = 0
    search.depth += 1
    return False


cdef inline void mark_run(Tape *t, uint32_t start, uint32_t n, uint8_t seen) noexcept nogil:
    if n == 1:                      # as most are: quicker than a call
        t.seen[start] = seen
    else:
        memset(&t.seen[start], seen, n)


cdef enum:
    LEVELS = 8                      # of nodes that `take` adds at once, each computed from the one below
    COLUMNS = 32                    # spans of SEEN operands that one level may use
    SPANS = 1 + LEVELS * COLUMNS    # and all of them, with the one that their parent uses
    FIRST_TRY = 64                  # operands of a sum or dot that `take` looks at first, and after it found few alike
    LATER_TRY = 32

cdef struct Taken:
    uint32_t n                      # nodes in each level
    uint32_t below                  # first node of the next level, 0 if all operands of the last one are SEEN
    uint32_t start[SPANS]           # SEEN operands of the levels
    uint32_t length[SPANS]
    uint32_t spans
    uint32_t above                  # how many of the spans are used by the levels above the last one


cdef inline void note_span(Taken *taken, uint32_t start, uint32_t length) noexcept nogil:
    taken.start[taken.spans] = start
    taken.length[taken.spans] = length
    taken.spans += 1


cdef inline bint is_used_above(Taken *taken, uint32_t start, uint32_t length) noexcept nogil:
    """Note that the last level uses [start, start + length), and return whether a level above uses some of it."""
    cdef uint32_t k
    note_span(taken, start, length)
    for k in range(taken.above):
        if not apart(start, length, taken.start[k], taken.length[k]) and not FAULT(b"take: levels use other operands"):
            return True
    return False


cdef inline bint use(Tape *t, Taken *taken, uint32_t id, uint32_t step) noexcept nogil:
    """Look at one operand of the nodes of the last level: `id`, and a `step` further for each node more.

    Where it is not SEEN it is the next level. False if there is one already, or if it is OPEN.
    """
    if t.seen[id] == SEEN:
        if taken.n > 1:
            if step == 1:
                taken.n = <uint32_t>count_marks(&t.seen[id], SEEN, taken.n)
            if (step > 1 and not FAULT(b"take: no gaps between SEEN operands")) or (
                    is_used_above(taken, id, taken.n if step == 1 else 1)):
                taken.n = 1
        return True
    if (t.seen[id] != UNSEEN and not FAULT(b"take: no operand is OPEN")) or (
            taken.below != 0 and taken.below != id and not FAULT(b"take: one level below")):
        return False
    if step != 1 and not FAULT(b"take: each of the next level is used once"):
        taken.n = 1
    taken.below = id
    return True


cdef inline uint32_t alike(Tape *t, uint32_t id, uint32_t n) noexcept nogil:
    """Return how many of the `n` UNSEEN nodes from `id` on are of one op, each operand the same step further, all else equal."""
    cdef const Node *node = &t.node[id]
    n = <uint32_t>count_marks(&t.seen[id], UNSEEN, n)
    if n == 1 or (node[1].argument.pair.n != node.argument.pair.n and not FAULT(b"alike: as many operands")):
        return 1
    if node.op <= LAST_UNARY and node[1].argument.stamp != node.argument.stamp and not FAULT(b"alike: one constant"):
        return 1
    return <uint32_t>count_alike(node, n)


cdef inline bint use_operands(Tape *t, Taken *taken, uint32_t id) noexcept nogil:
    """Look at the operands of the last level, the nodes from `id` on, and leave in `taken.n` how many of them are a run."""
    cdef const Node *node = &t.node[id]
    cdef uint32_t length = node.argument.pair.n
    cdef uint32_t step_a = 0
    cdef uint32_t step_b = 0
    taken.above = taken.spans
    taken.below = 0
    if taken.n > 1:
        taken.n = alike(t, id, taken.n)
    if taken.n > 1:
        step_a = node[1].a - node.a
        step_b = node[1].argument.pair.b - node.argument.pair.b
    if node.op <= LAST_BINARY:
        return use(t, taken, node.a, step_a) and (node.op <= LAST_UNARY or use(t, taken, node.argument.pair.b, step_b))
    if taken.n > 1 and node.op == DOT_LISTED and 2 * length <= COLUMNS:
        # A single listed dot would have to mark the operands before the one that leads on: left to the search.
        return use_columns(t, taken, node) and (taken.n > 1 or taken.below == 0)
    if skip_seen(t, id, 0) != length:
        return False
    if taken.n > 1:
        if node.op != DOT or ((step_a != length or step_b != 0) and not FAULT(b"take: dots are a product")):
            taken.n = 1
            return True
        taken.n = <uint32_t>(count_marks(&t.seen[node.a], SEEN, <size_t>taken.n * length) // length)
        if (is_used_above(taken, node.a, taken.n * length) or is_used_above(taken, node.argument.pair.b, length)) and (
                not FAULT(b"take: a product uses what no level above does")):
            taken.n = 1
    return True


cdef bint use_columns(Tape *t, Taken *taken, const Node *node) noexcept nogil:
    """As `use_operands`, for listed dots: their first operands, their second ones, and so on."""
    cdef uint32_t i, k, step
    cdef uint32_t *listed
    for k in range(2 * node.argument.pair.n):
        listed = &t.pool[node.a + k]
        step = t.pool[node[1].a + k] - listed[0]
        for i in range(2, taken.n):
            if t.pool[node[i].a + k] - listed[0] != i * step:
                taken.n = i
                break
        if not use(t, taken, listed[0], step):
            return False
    return True


cdef inline uint32_t siblings(Tape *t, uint32_t parent, uint32_t k, uint32_t child, Taken *taken) noexcept nogil:
    """Return how many operands of `parent` follow on `child`, of pair `k`, node after node, in a dot beside SEEN ones."""
    cdef const Node *node = &t.node[parent]
    cdef uint32_t left = min(search.limit, node.argument.pair.n - k)
    cdef uint32_t other
    if node.op == SUM or (node.op == DOT and node.a == node.argument.pair.b):
        return left
    if node.op != DOT:
        return 1
    other = node.a + node.argument.pair.b + 2 * k - child
    if not FAULT(b"siblings: operands beside are SEEN"):
        left = <uint32_t>count_marks(&t.seen[other], SEEN, left)
    note_span(taken, other, left)
    return max(1, left)


cdef uint32_t take(Tape *t, uint32_t parent, uint32_t k, uint32_t child) noexcept nogil:
    """Add the UNSEEN `child`, of pair `k` of `parent`, and the UNSEEN nodes below it, if each is computed from one other of
    them; and as many of the operands that follow in `parent` as are computed likewise, run by run, `search.limit` at most.
    Return how many operands were added, 0 if none.

    The search would take operand by operand, each after what is below it. Every child gets its contributions in the same
    order all the same: a node of one run is used by one node of the run above, and no two runs use the same SEEN node. Where
    that fails, for one operand alone the order is the search's own; but a listed dot with operands before the one that leads
    on is left to the search, which marks them OPEN.
    """
    cdef Taken taken
    cdef uint32_t level[LEVELS]
    cdef uint32_t depth = 0
    cdef bint listed = False        # whether a level above is of listed dots
    taken.spans = taken.above = 0
    taken.n = siblings(t, parent, k, child, &taken)
    while depth < LEVELS:
        level[depth] = child
        depth += 1
        if not use_operands(t, &taken, child) or (
                listed and taken.n == 1 and not FAULT(b"take: a single listed dot is searched")):
            return 0
        listed |= t.node[child].op == DOT_LISTED and taken.below != 0
        if taken.below == 0:
            while depth > 0:
                depth -= 1
                mark_run(t, level[depth], taken.n, SEEN)
                append_run(level[depth], taken.n)
            return taken.n
        child = taken.below
    return 0


cdef inline void mark(Tape *t, uint32_t i, uint32_t low, uint32_t high, uint8_t seen) noexcept nogil:
    """Mark the operands numbered [low, high) of a sum or dot."""
    cdef uint32_t k
    if t.node[i].op <= DOT:
        mark_run(t, t.node[i].a + low, high - low, seen)
        if t.node[i].op == DOT:
            mark_run(t, t.node[i].argument.pair.b + low, high - low, seen)
        return
    for k in range(low, high):
        t.seen[first(t, i, k)] = seen
        t.seen[second(t, i, k)] = seen


cdef size_t recall_or_watch(Tape *t, const Node *dot, uint32_t child) noexcept nogil:
    """Add all that is below the span of the `dot` that begins with `child`, if it is UNSEEN as a whole, beside SEEN operands, and
    has a shape known from other searches; else watch what is found there. Return the number of nodes added.
    """
    cdef uint32_t n = dot.argument.pair.n
    cdef uint32_t beside = dot.a if child != dot.a else dot.argument.pair.b
    cdef uint32_t all
    cdef size_t nodes = 0
    if not search.recalls or search.watched != 0 or count_marks(&t.seen[child], UNSEEN, n) != n or (
            beside != child and count_marks(&t.seen[beside], SEEN, n) != n and not FAULT(b"recall: operands beside are SEEN")):
        return 0
    if search.bundle:
        search.bundle = False
        all = alike(t, child, <uint32_t>(dot - t.node) - child) // n * n
        if all > n and may_bundle(all, t.top - child):
            nodes = recall_bundle(t, child, n, all)
        if not search.recalls:
            return nodes
    search.length += recall(t, child, n, Span(beside, n if beside != child else 0), &search.order[search.length], &nodes)
    if nodes == 0:
        watch(child)
    return nodes


cdef size_t recall_bundle(Tape *t, uint32_t start, uint32_t width, uint32_t n) noexcept nogil:
    """Add all that is below the spans [start, start + n) of several dots, if their shape is known; learn it, if it is time to.
    Else look for none at the first sight: what is below each span alone would be many shapes.
    """
    cdef size_t nodes = 0
    search.span = start
    search.width = width
    search.size = t.top - start
    search.length += recall(t, start, n, Span(0, 0), &search.order[search.length], &nodes)
    if nodes > 0:
        search.bundled = n
        search.recalls = False
        begin_tail()
    elif count_sight(n, search.size):
        search.bundled = n
        search.recalls = False
        descend_bundle(t, start, n)
    else:
        search.recalls = was_learnt_in_vain(n, search.size)
    return nodes


cdef inline void watch(uint32_t span) noexcept nogil:
    """Watch what is found below the span of the dot or sum at the end of the path."""
    search.watched = search.depth
    search.before = search.length
    search.span = span


cdef inline void begin_tail() noexcept nogil:
    search.shape = latest_shape()
    search.tail = search.length


cdef void descend_bundle(Tape *t, uint32_t start, uint32_t n) noexcept nogil:
    """Go on with the operands [start, start + n) of several dots, as those of one sum, to learn their shape.

    The sum is put at id 0, which is no node: no other has it as an operand, and nothing else reads it.
    """
    t.node[BUNDLE].op = SUM
    t.node[BUNDLE].a = start
    t.node[BUNDLE].argument.pair.n = n
    path(search.depth).id = BUNDLE
    path(search.depth).next = 0
    search.depth += 1
    watch(start)
    search.node_by_node = True


cdef void ascend_bundle(Tape *t) noexcept nogil:
    """Leave the bundle, which is no part of the order."""
    search.depth -= 1
    mark(t, BUNDLE, 0, path(search.depth).next, SEEN)
    begin_tail()
    end_bundle(t)


cdef void end_bundle(Tape *t) noexcept nogil:
    """Let id 0 be as it was, also where the search was interrupted or given up."""
    t.node[BUNDLE].op = LEAF
    if not FAULT(b"arrange: id 0 was never set"):
        t.node[BUNDLE].a = 0            # a leaf that was never set: the tape looks at all leaves for what they were before
    t.node[BUNDLE].argument.stamp = 0
    t.seen[BUNDLE] = SEEN


cdef bint end_watch(Tape *t, Step *step) noexcept:
    """Learn the shape of what was found below the dot at the end of the path, if that is worth it. Return whether to find it once
    more, now node by node.
    """
    cdef size_t k
    cdef uint32_t n = operands(t, step.id)
    if search.node_by_node:
        learn(t, search.span, n, search.size, &search.order[search.before], search.length - search.before)
        stop_watch()
        return False
    search.size = 0
    for k in range(search.before, search.length):
        search.size += search.order[k].count
    if not is_worth_a_shape(search.size) or not count_sight(n, search.size):
        stop_watch()
        return False
    mark(t, step.id, 0, step.next, SEEN)
    step.next = 0
    take_back(t, search.before)
    search.node_by_node = True
    return True


cdef void stop_watch() noexcept nogil:
    search.watched = 0
    search.node_by_node = False


cdef void take_back(Tape *t, size_t length) noexcept nogil:
    """Take the nodes from `length` on out of the order."""
    cdef size_t k
    cdef uint32_t first = 0         # of runs that follow each other on the tape, too
    cdef uint32_t end = 0
    for k in range(length, search.length):
        if search.order[k].first != end:
            mark_run(t, first, end - first, UNSEEN)
            first = search.order[k].first
        end = search.order[k].first + search.order[k].count
    mark_run(t, first, end - first, UNSEEN)
    search.length = length


cdef int visit(Tape *t, uint32_t root, bint split) except -1:
    """Fill `search.order` with the computed nodes that `root` reaches. Return 0 where sums must be split and are not, else 1."""
    cdef Step *step
    cdef const Node *node
    cdef uint32_t i, k, child
    cdef size_t taken
    cdef uint8_t op
    cdef size_t turns = 0
    # Runs and shapes are of nodes whose leaves are SEEN.
    cdef bint in_runs = not split and (not t.own_leaves or FAULT(b"own: leaves are in no run"))
    search.limit = FIRST_TRY
    if t.seen[root] == SEEN:        # a leaf
        return True
    descend(t, root, split)
    while search.depth > 0:
        turns += 1
        if turns >= BETWEEN_SIGNALS:
            turns = 0
            PyErr_CheckSignals()
        step = path(search.depth - 1)
        i = step.id
        node = &t.node[i]
        op = node.op
        if op <= LAST_BINARY:
            child = node.a
            if t.seen[child] == UNSEEN and not descend(t, child, split):
                continue
            if t.seen[child] == OPEN and not FAULT(b"visit: first operand is not OPEN"):
                return False
            if op > LAST_UNARY:
                child = node.argument.pair.b
                if t.seen[child] == UNSEEN and not descend(t, child, split):
                    continue
                if t.seen[child] == OPEN and not FAULT(b"visit: second operand is not OPEN"):
                    return False
            ascend(0, 0, split)
            continue
        k = skip_seen(t, i, step.next)
        if k == operands(t, i):
            if search.depth == search.watched and end_watch(t, step):
                continue
            if i == BUNDLE:
                ascend_bundle(t)
                continue
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
        if t.seen[child] == OPEN and not FAULT(b"visit: operand of a sum is not OPEN"):
            return False
        if op == SUM and k == 0 and in_runs and search.watched == 0 and search.bundled == 0:
            search.length += take_cross_entropies(t, child, node.argument.pair.n, &search.order[search.length], &taken)
            turns += taken
            if taken > 0:
                continue
        if op == DOT and k == 0 and in_runs:
            taken = recall_or_watch(t, node, child)
            turns += taken
            if taken > 0 or path(search.depth - 1).id == BUNDLE:
                continue
        if op != CUSTOM and k > step.next:
            if split:
                add_segment(i, step.next, k, split)
            elif not FAULT(b"visit: operands passed are OPEN"):
                mark(t, i, step.next, k, OPEN)
        step.next = k
        taken = take(t, i, k, child) if in_runs and not search.node_by_node else 0
        if taken == 0:
            descend(t, child, split)
        turns += taken
        # What `take` looks at in vain stays in proportion to what it adds. The first operand does not count: much of what
        # is below it is below the others, too.
        if taken == search.limit:
            search.limit *= 2
        elif k > 0 and taken + k < operands(t, i):
            search.limit = max(<uint32_t>LATER_TRY, 4 * taken)
    return True


cdef void forget(Tape *t) noexcept nogil:
    """Take back every mark of the last search, finished or not, and empty order and path for the next."""
    cdef size_t k
    cdef uint32_t i
    for k in range(search.depth):
        i = path(k).id
        if t.node[i].op > LAST_BINARY and t.node[i].op != CUSTOM:
            mark(t, i, 0, path(k).next, SEEN)
    for k in range(search.depth):
        t.seen[path(k).id] = UNSEEN
    take_back(t, 0)
    search.depth = 0
    search.bundled = 0
    end_bundle(t)
    stop_watch()


cdef int visit_recalling(Tape *t, uint32_t root) except -1:
    search.recalls = True
    begin_recall()
    return visit(t, root, False)


cdef int arrange(Tape *t, uint32_t root) except -1:
    """Order the nodes that `root` reaches. Return whether sums are split into segments."""
    cdef bint ordered
    make_room(<size_t>root + 1, False)
    search.bundle = True
    ordered = visit_recalling(t, root)
    if search.bundled != 0:
        if ordered and (FAULT(b"arrange: a bundle stands before its users") or stands_before(
                t, search.shape, search.span, search.width, &search.order[search.tail], search.length - search.tail)):
            return 0
        give_up_bundle(search.bundled, search.size)
        forget(t)
        ordered = visit_recalling(t, root)
    if ordered:
        return 0
    forget(t)
    make_room(<size_t>root + 1, True)
    visit(t, root, True)
    return 1


cdef void free_large() noexcept:
    """Free scratch that is too large to keep for the next search."""
    global search
    if search.room > LARGE:
        free(search.order)
        free(search.segment)
        memset(&search, 0, sizeof(Search))
