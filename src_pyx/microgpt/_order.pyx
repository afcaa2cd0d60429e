"""Topological order.

The reference's order is depth-first from the root over children in constructor order, each node after its children, walked from
its end. The order here may be another, but to each node's gradient all contributions come in the reference's sequence. Sums of
floats depend on that alone, so every gradient agrees to the last bit.

A sum or dot is one node here and a chain of additions in the reference, ((0 + p0) + p1) + ...: there, all that is first
reached through operand k lies between p[k-1] and p[k] in the order. That shows only when something in between uses an operand
passed before (tied weights do). So the first search treats a sum as one entry and, while it is below operand k, marks the
operands before k as OPEN; a node that uses an OPEN operand ends the search, and a second one splits sums into the segments of
the reference. Leaves and seen spans cost one look at eight marks.

Where a sum or dot uses a row of nodes in turn, such as those of a product or of an elementwise operation, the search goes to the
first of them alone. What the others are computed from is mostly SEEN then, or more rows, element by element. Such rows enter the
order as a whole (`take`).
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memset

from microgpt._tape cimport (
    CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, LAST_BINARY, LAST_UNARY, LEAF, OPEN, RUN, SEEN, SUM, UNSEEN, Node, Run, Tape,
    left_of_run, look_at, node_at, op_at, reallocate, record_at, steps_of, stride_at
)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    bint are_marks(const uint8_t *p, uint8_t mark, size_t n)
    size_t count_marks(const uint8_t *p, uint8_t mark, size_t n)
    size_t count_alike(const void *node, size_t n)

cdef enum:
    LARGE = 1 << 20                 # entries whose scratch is not kept for the next search
    MOST_BETWEEN = 64               # nodes looked at for each one that matters (`seen_rows`)


cdef int make_room(size_t n, bint split) except -1:
    """Make room for a search below id `n`. Pages that the search does not reach are never touched."""
    # Nodes are on the path or in the order, which grow towards each other. Split sums: two more, an entry per node and one per
    # node that is first reached from a sum.
    cdef size_t entries = 3 * n if split else n
    if entries > search.room:
        reallocate(<void **>&search.order, entries, sizeof(Run))
        search.room = entries
    if n // 2 > search.joined_room:
        reallocate(<void **>&search.joined, n // 2, sizeof(uint32_t))
        search.joined_room = n // 2
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


cdef inline uint32_t seen_rows(Tape *t, uint32_t start, uint32_t step, uint32_t n, uint32_t length) noexcept nogil:
    """Return how many of `n` rows are SEEN before the first that is not: [start, start + length), and each a `step` further.

    The rows that attention looks at follow each other, and mostly only the last one is new: one look at what lies between as well
    is quicker than one at each.
    """
    cdef uint32_t k = 0
    if n > 2 and step <= MOST_BETWEEN * length and are_marks(&t.seen[start], SEEN, (n - 2) * <size_t>step + length):
        k = n - 1
    while k < n and count_marks(&t.seen[start + k * step], SEEN, length) == length:
        k += 1
    return k


cdef uint32_t skip_seen(Tape *t, uint32_t i, const Node *node, uint32_t k) noexcept nogil:
    """Return the first operand (or pair) at or after `k` of node `i` that is not just SEEN, or their number."""
    cdef uint32_t n = node.argument.pair.n
    cdef uint32_t unseen
    if node.op == SUM:
        return k + <uint32_t>count_marks(&t.seen[node.a + k], SEEN, n - k)
    if node.op == DOT:  # first operands no further than seconds: else new seconds, met one by one, rescan all first ones
        unseen = k + <uint32_t>count_marks(&t.seen[node.argument.pair.b + k], SEEN, n - k)
        return min(unseen, k + <uint32_t>count_marks(&t.seen[node.a + k], SEEN, min(unseen + 1, n) - k))
    if node.op == DOT_STRIDED:
        unseen = k + <uint32_t>count_marks(&t.seen[node.a + k], SEEN, n - k)
        return min(unseen, k + seen_rows(t, second(t, i, node, k), stride_at(t, i), min(unseen + 1, n) - k, 1))
    while k < n and t.seen[first(t, node, k)] == SEEN and t.seen[second(t, i, node, k)] == SEEN:
        k += 1
    return k


cdef inline bint descend(Tape *t, uint32_t id, bint split) noexcept nogil:
    """Go to node `id`. Return whether it went straight into the order, its operands being all SEEN."""
    cdef Node room
    cdef const Node *node = look_at(t, id, &room)
    t.seen[id] = SEEN
    if node.op <= LAST_BINARY:
        if node.op == LEAF or (         # a leaf is come to only for its own `_backward`
                t.seen[node.a] == SEEN and (node.op <= LAST_UNARY or t.seen[node.argument.pair.b] == SEEN)):
            add_segment(id, 0, 0, split)
            return True
    elif skip_seen(t, id, node, 0) == node.argument.pair.n:
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
    LEVELS = 24                     # rows that `take` adds at once
    USES = 96                       # spans of SEEN operands that they may use
    COLUMNS = 32                    # operands of a listed dot in such a row
    PARENT = LEVELS                 # as the level of a use: the parent's
    FIRST_TRY = 64                  # operands of a sum or dot that `take` looks at first, and after it found few alike
    LATER_TRY = 32

cdef struct Use:                    # a level uses [start, end), which are SEEN
    uint32_t start
    uint32_t end
    uint32_t level
    uint32_t step                   # how much further each node more reaches
    bint in_turn                    # its k-th node the k-th of them, and no other

cdef struct Rows:                   # rows of `n` nodes: what the k-th node of one is computed from is SEEN, or the k-th of others
    uint32_t n
    uint32_t levels
    uint32_t level[LEVELS]          # first node of each, as they were come to
    bint passed[LEVELS]             # whether a row of dots has it as an operand that they have passed
    uint32_t ordered
    uint32_t order[LEVELS]          # first node of each, after those that it is computed from
    uint32_t uses
    Use use[USES]


cdef inline bint collide(const Use *x, const Use *y) noexcept nogil:
    """Whether two levels use the same operands, so that the two would come by turns."""
    return x.start < y.end and y.start < x.end and x.level != y.level and (
        not (x.in_turn and y.in_turn and x.start == y.start)) and not FAULT(b"take: levels use other operands")


cdef bint note_use(Rows *rows, uint32_t level, uint32_t start, uint32_t end, uint32_t step, bint in_turn) noexcept nogil:
    """Note that a level uses [start, end). False if that may not be, or if there is no room."""
    cdef uint32_t k
    if rows.uses == USES:
        return False
    rows.use[rows.uses] = Use(start, end, level, step, in_turn)
    for k in range(rows.uses):
        if collide(&rows.use[k], &rows.use[rows.uses]):
            return False
    rows.uses += 1
    return True


cdef inline uint32_t alike(Tape *t, uint32_t id, uint32_t n) noexcept nogil:
    """Return how many of the `n` UNSEEN nodes from `id` on are of one op, each operand the same step further, all else equal."""
    cdef const Node *record = record_at(t, id)
    n = <uint32_t>count_marks(&t.seen[id], UNSEEN, n)
    if record.op & RUN:
        return min(n, left_of_run(t, id))
    n = min(n, t.record_top - t.record_of[id])
    if n == 1:
        return 1
    # Nodes that were made one by one, whose records follow each other.
    if record[1].argument.pair.n != record.argument.pair.n and not FAULT(b"alike: as many operands"):
        return 1
    if record.op <= LAST_UNARY and record[1].argument.stamp != record.argument.stamp and not FAULT(b"alike: one constant"):
        return 1
    return <uint32_t>count_alike(record, n)


cdef bint take_level(Tape *t, Rows *rows, uint32_t id) noexcept nogil:
    """Add the row of UNSEEN nodes from `id` on, after the rows below it; fewer nodes of each if need be, two at least."""
    cdef Node node = node_at(t, id)
    cdef const Node *record = record_at(t, id)
    cdef uint32_t length = node.argument.pair.n
    cdef uint32_t level = rows.levels
    cdef uint32_t step_a, step_b
    cdef bint taken
    if level == LEVELS or node.op == LEAF:
        return False
    rows.level[level] = id
    rows.passed[level] = False
    rows.levels += 1
    rows.n = alike(t, id, rows.n)
    if rows.n < 2:
        return False
    if record.op & RUN:
        step_a = steps_of(record).step_a
        step_b = steps_of(record).step_b
    else:                               # the record after it is that of the node after it
        step_a = record[1].a - node.a
        step_b = record[1].argument.pair.b - node.argument.pair.b
    if node.op <= LAST_BINARY:
        taken = use(t, rows, level, node.a, step_a) and (
            node.op <= LAST_UNARY or use(t, rows, level, node.argument.pair.b, step_b))
    elif node.op == SUM:
        taken = use_spans(t, rows, level, node.a, step_a, length)
    elif node.op == DOT:
        taken = use_spans(t, rows, level, node.a, step_a, length) and (
            use_spans(t, rows, level, node.argument.pair.b, step_b, length))
    elif node.op == DOT_STRIDED:
        taken = use_strided(t, rows, level, id)
    else:
        taken = node.op == DOT_LISTED and 2 * length <= COLUMNS and use_columns(t, rows, level, record)
    if not taken or rows.n < 2:
        return False
    rows.order[rows.ordered] = id
    rows.ordered += 1
    return True


cdef bint use(Tape *t, Rows *rows, uint32_t level, uint32_t id, uint32_t step) noexcept nogil:
    """Look at one operand of the nodes of a level: `id`, and a `step` further for each node more. Add the row that it is, if it
    is UNSEEN.
    """
    cdef uint32_t k
    if t.seen[id] == SEEN:
        if step == 0:
            return note_use(rows, level, id, id + 1, 0, False)
        if step != 1:
            return use_spans(t, rows, level, id, step, 1)
        rows.n = <uint32_t>count_marks(&t.seen[id], SEEN, rows.n)
        return note_use(rows, level, id, id + rows.n, 1, True)
    if step != 1 and not FAULT(b"take: each of the next level is used once"):
        return False
    rows.n = <uint32_t>count_marks(&t.seen[id], UNSEEN, rows.n)
    if rows.n < 2:
        return False
    # Rows that overlap would use the same below, in other turns: `note_use` refuses them.
    for k in range(rows.levels):
        if rows.level[k] == id:
            return not rows.passed[k]
    return take_level(t, rows, id)


cdef void pass_by(Rows *rows, uint32_t level, uint32_t id) noexcept nogil:
    """Note that the dots of a level have passed their operands from `id` on: what is below the next ones may not use these.

    They are OPEN then, where the search takes dot by dot.
    """
    cdef uint32_t k
    if FAULT(b"take: nothing below uses what a dot has passed"):
        return
    for k in range(rows.levels):
        rows.passed[k] |= rows.level[k] == id
    for k in range(rows.uses):
        rows.use[k].in_turn &= rows.use[k].level != level


cdef bint use_spans(Tape *t, Rows *rows, uint32_t level, uint32_t start, uint32_t step, uint32_t length) noexcept nogil:
    """Look at the spans of SEEN operands of the nodes of a level: [start, start + length), a `step` further for each one more."""
    cdef size_t seen
    if step <= length:
        seen = count_marks(&t.seen[start], SEEN, (rows.n - 1) * <size_t>step + length)
        if seen < length:
            return False
        if step > 0:
            rows.n = min(rows.n, <uint32_t>((seen - length) // step + 1))
    else:
        if step > t.top:            # down the tape
            return False
        rows.n = seen_rows(t, start, step, rows.n, length)
        if rows.n < 2:
            return False
    return note_use(rows, level, start, start + (rows.n - 1) * step + length, step, False)


cdef bint use_strided(Tape *t, Rows *rows, uint32_t level, uint32_t id) noexcept nogil:
    """As `use_spans`, for strided dots: the k-th pair of all of them are one weight and a row."""
    cdef Node node = node_at(t, id)
    cdef uint32_t stride = stride_at(t, id)
    cdef uint32_t length = node.argument.pair.n
    cdef uint32_t b = node.argument.pair.b
    cdef uint32_t k
    if count_marks(&t.seen[node.a], SEEN, length) != length or not note_use(rows, level, node.a, node.a + length, 0, False):
        return False
    for k in range(seen_rows(t, b, stride, length, rows.n), length):
        if t.seen[b + k * stride] == SEEN:
            rows.n = <uint32_t>count_marks(&t.seen[b + k * stride], SEEN, rows.n)
        elif use(t, rows, level, b + k * stride, 1):
            pass_by(rows, level, b + k * stride)
        else:
            return False
    # Those that are SEEN may not be used elsewhere; what lies between them and the rows of others are looked at as well.
    return note_use(rows, level, b, b + (length - 1) * stride + rows.n, 1, False)


cdef bint use_columns(Tape *t, Rows *rows, uint32_t level, const Node *node) noexcept nogil:
    """As `use`, for listed dots, whose records follow each other: their first operands, their second ones, and so on."""
    cdef uint32_t i, k, step
    cdef uint32_t *listed
    for k in range(2 * node.argument.pair.n):
        listed = &t.pool[node.a + k]
        step = t.pool[node[1].a + k] - listed[0]
        for i in range(2, rows.n):
            if t.pool[node[i].a + k] - listed[0] != i * step:
                rows.n = i
                break
        if not use(t, rows, level, listed[0], step):
            return False
        if k % 2 == 1:
            pass_by(rows, level, listed[-1])
            pass_by(rows, level, listed[0])
    return True


cdef uint32_t siblings(Tape *t, uint32_t parent, uint32_t k, uint32_t child, Rows *rows) noexcept nogil:
    """Return how many operands of `parent` follow on `child`, of pair `k`, node after node, in a dot beside SEEN ones."""
    cdef Node node = node_at(t, parent)
    cdef uint32_t stride
    cdef uint32_t left = min(search.limit, node.argument.pair.n - k)
    cdef uint32_t other
    if node.op == SUM or (node.op == DOT and node.a == node.argument.pair.b):
        return left
    if node.op == DOT:
        other = node.a + node.argument.pair.b + 2 * k - child
        if not FAULT(b"siblings: operands beside are SEEN"):
            left = <uint32_t>count_marks(&t.seen[other], SEEN, left)
        note_use(rows, PARENT, other, other + left, 1, True)
        return left
    if node.op == DOT_STRIDED:
        stride = stride_at(t, parent)
        other = node.argument.pair.b + k * stride
        if child != node.a + k:
            return 1
        left = seen_rows(t, other, stride, left, 1)
        note_use(rows, PARENT, other, other + left * stride, stride, False)
        return left
    return 1


cdef uint32_t take(Tape *t, uint32_t parent, uint32_t k, uint32_t child) noexcept nogil:
    """Add the UNSEEN `child`, of pair `k` of `parent`, and as many of the operands that follow in `parent` as are computed
    likewise, `search.limit` at most, with the rows of UNSEEN nodes below them. Return how many operands were added, 0 if not two.

    The search would take operand by operand, each after what is below it: the k-th node of each row, then those with the next
    number. Every child gets its contributions in the same order all the same: a node of a row is used by nodes of its own number
    alone, and what is SEEN is used by one row alone, or in turn by nodes of its own number.
    """
    cdef Rows rows
    cdef uint32_t i
    rows.levels = rows.ordered = rows.uses = 0
    rows.n = siblings(t, parent, k, child, &rows)
    if rows.n < 2 or not take_level(t, &rows, child):
        return 0
    for i in range(rows.ordered):
        mark_run(t, rows.order[i], rows.n, SEEN)
    if not extend(t, &rows):
        for i in range(rows.ordered):
            append_run(rows.order[i], rows.n)
    for i in range(search.length - rows.ordered + 1, search.length):
        join(i)
    return rows.n


cdef void join(uint32_t k) noexcept nogil:
    """Note that entry `k` was taken together with the one before. There is room: at most one for each two nodes."""
    if search.joined_length == 0 or search.joined[search.joined_length - 1] < k:
        search.joined[search.joined_length] = k
        search.joined_length += 1


cdef bint extend(Tape *t, Rows *rows) noexcept nogil:
    """Add the rows to the last entries of the order, if these are the nodes before them, as if the rows had been longer."""
    cdef Run *last
    cdef uint32_t count, i, k
    if rows.ordered > search.length:
        return False
    last = &search.order[search.length - rows.ordered]
    count = last.count
    for i in range(rows.ordered):
        if last[i].count != count or last[i].first + count != rows.order[i] or not goes_on(t, rows.order[i], count):
            return False
    for i in range(rows.uses):
        rows.use[i].start -= count * rows.use[i].step
        for k in range(i):
            if collide(&rows.use[k], &rows.use[i]):
                return False
        for k in range(rows.ordered):   # those before were SEEN by all
            if rows.use[i].start < rows.order[k] and rows.order[k] - count < rows.use[i].end and (
                    not FAULT(b"extend: no node of a row is used by all")):
                return False
    for i in range(rows.ordered):
        last[i].count += rows.n
    return True


cdef inline bint goes_on(Tape *t, uint32_t id, uint32_t count) noexcept nogil:
    """Whether the run of nodes from `id` on goes on one that ends before it, of `count` nodes."""
    cdef uint32_t before = min(count, <uint32_t>2)      # two nodes on each side, where there are, tell
    if (record_at(t, id).op | record_at(t, id - 1).op) & RUN:   # rows that follow each other by chance stay rows
        return t.record_of[id] == t.record_of[id - count]
    if record_at(t, id).op > DOT or t.record_top - t.record_of[id] < 2:
        return False
    return count_alike(record_at(t, id - before), before + 2) == before + 2


cdef inline void mark(Tape *t, uint32_t i, uint32_t low, uint32_t high, uint8_t seen) noexcept nogil:
    """Mark the operands numbered [low, high) of a sum or dot."""
    cdef Node node = node_at(t, i)
    cdef uint32_t k
    if node.op <= DOT:
        mark_run(t, node.a + low, high - low, seen)
        if node.op == DOT:
            mark_run(t, node.argument.pair.b + low, high - low, seen)
        return
    for k in range(low, high):
        t.seen[first(t, &node, k)] = seen
        t.seen[second(t, i, &node, k)] = seen


cdef void take_back(Tape *t) noexcept nogil:
    """Take all nodes out of the order."""
    cdef size_t k
    cdef uint32_t first = 0         # of runs that follow each other on the tape, too
    cdef uint32_t end = 0
    for k in range(search.length):
        if search.order[k].first != end:
            mark_run(t, first, end - first, UNSEEN)
            first = search.order[k].first
        end = search.order[k].first + search.order[k].count
    mark_run(t, first, end - first, UNSEEN)
    search.length = 0


cdef int visit(Tape *t, uint32_t root, bint split) except -1:
    """Fill `search.order` with the computed nodes that `root` reaches. Return 0 where sums must be split and are not, else 1."""
    cdef Step *step
    cdef Node room
    cdef const Node *node
    cdef uint32_t i, k, child, taken
    cdef uint8_t op
    cdef size_t turns = 0
    cdef bint in_runs = not split and not t.own_leaves      # runs are of nodes whose leaves are SEEN
    search.limit = FIRST_TRY
    search.joined_length = 0
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
        node = look_at(t, i, &room)
        op = <uint8_t>node.op
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
        k = skip_seen(t, i, node, step.next)
        if k == node.argument.pair.n:
            if op == CUSTOM:
                ascend(0, k, split)
            elif split:
                ascend(step.next, k, split)
            else:
                mark(t, i, 0, step.next, SEEN)
                ascend(0, k, split)
            continue
        child = first(t, node, k)
        if t.seen[child] == SEEN:
            child = second(t, i, node, k)
        if t.seen[child] == OPEN and not FAULT(b"visit: operand of a sum is not OPEN"):
            return False
        if op != CUSTOM and k > step.next:
            if split:
                add_segment(i, step.next, k, split)
            elif not FAULT(b"visit: operands passed are OPEN"):
                mark(t, i, step.next, k, OPEN)
        step.next = k
        taken = take(t, i, k, child) if in_runs else 0
        if taken == 0:
            descend(t, child, split)
        turns += taken
        # What `take` looks at in vain stays in proportion to what it adds. The first operand does not count: much of what
        # is below it is below the others, too.
        if taken == search.limit:
            search.limit *= 2
        elif k > 0 and taken + k < node.argument.pair.n:
            search.limit = max(<uint32_t>LATER_TRY, 4 * taken)
    return True


cdef void forget(Tape *t) noexcept nogil:
    """Take back every mark of the last search, finished or not, and empty order and path for the next."""
    cdef size_t k
    cdef uint32_t i
    for k in range(search.depth):
        i = path(k).id
        if op_at(t, i) > LAST_BINARY and op_at(t, i) != CUSTOM:
            mark(t, i, 0, path(k).next, SEEN)
    for k in range(search.depth):
        t.seen[path(k).id] = UNSEEN
    take_back(t)
    search.depth = 0


cdef int arrange(Tape *t, uint32_t root) except -1:
    """Order the nodes that `root` reaches. Return whether sums are split into segments."""
    make_room(<size_t>root + 1, False)
    if visit(t, root, False):
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
        free(search.joined)
        memset(&search, 0, sizeof(Search))
