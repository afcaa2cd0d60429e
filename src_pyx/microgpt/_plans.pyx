"""Plans, kept from one graph to the next.

A model in training makes graphs that differ in their numbers, and hardly in their shape: in the rows that are looked up, and in
the targets. Where a graph is, node by node, like one before, but for its place on the tape, its plan is the same, and is not made
again. The nodes of a run are one comparison. Plans that were not used for longest are dropped.
"""

from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy

from microgpt._order cimport make_room, search
from microgpt._schedule cimport BOTH, SIDE_A, SIDE_B, Pivot, PivotRow, Plan, Task, room_for, scratch
from microgpt._tape cimport (
    ADD_CONSTANT, DOT, DOT_STRIDED, LAST_BINARY, LAST_UNARY, LEAF, MUL, RUN, SUM, Node, Run, Steps, Tape, first_above, node_at,
    op_at, record_at, steps_of, try_reallocate
)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)

cdef enum:
    MOST_BYTES = 1 << 25            # that all plans take
    MOST_OF_A_KEY = 64              # plans that one key has, with one matrix
    LOOKED_AT = 96                  # records below the root in which a matrix is looked for
    SMALL = 1 << 15                 # bytes of a plan; a larger one
    MOST_OF_A_NODE = 16             # takes so many for each node, or it is not kept
    BUCKETS = 1 << 10

cdef enum:
    SAME_CONSTANT = 4               # of a Part: its number is that of the part before
    ANY_OPERAND = 8                 # its first operand is one of a row of nodes, whichever
    MOVES_A = 16                    # first operands are not below the lowest node: `a` is their distance from that
    MOVES_B = 32                    # so are second ones, and `b`

cdef struct Part:                   # what a record says
    uint32_t count                  # of nodes
    uint32_t op                     # as in the record
    uint32_t a                      # operands of the first one
    uint32_t b
    uint32_t n                      # as in a Node; with ANY_OPERAND the length of the row
    uint32_t step_a                 # as in Steps
    uint32_t step_b
    uint32_t flags                  # sides where any leaves do, and those above

cdef struct Kept:                   # owner of its arrays
    uint64_t key
    uint32_t matrix                 # as `matrix_of` the root says
    uint64_t used                   # when it was used last
    uint32_t size                   # distance of the root from the lowest node
    uint32_t outside                # highest leaf below that is used, and is no matter of choice
    size_t bytes
    size_t length                   # of `part`
    Part *part
    size_t run_count
    Run *runs                       # all nodes of the order, by their distances
    Plan plan                       # distances in place of ids
    size_t span_count
    Run *spans                      # leaves that are no matter of choice, by their ids
    bint sure                       # whether these are known to be leaves still
    Kept *next                      # in its bucket

cdef Kept *buckets[BUCKETS]         # owned here, for the life of the process
cdef size_t nbytes = 0
cdef uint64_t uses = 0
cdef size_t kept_count = 0
cdef uint32_t highest_outside = 0   # of all plans, ever
cdef size_t reused = 0              # nodes, ever


cdef uint64_t key_of(Tape *t, uint32_t root) noexcept nogil:
    """What graphs of one shape have in common, and others mostly have not: the last two nodes."""
    cdef uint64_t key = 0
    cdef Node node
    cdef uint32_t k
    for k in range(2):
        node = node_at(t, root - k)
        key = key * 31 + node.op
        if node.op != LEAF:
            key = key * 31 + (root - node.a if node.op <= DOT else 0)
            if node.op > LAST_UNARY:
                key = key * 31 + node.argument.pair.n
    return key


cdef uint32_t matrix_of(Tape *t, uint32_t root) noexcept nogil:
    """The first row of a matrix of leaves, in the highest product not far below `root`; 0 if there is none. Graphs of one shape
    that have others are those of other models.
    """
    cdef const Node *record
    cdef uint32_t _k
    cdef uint32_t id = root
    for _k in range(LOOKED_AT):
        record = record_at(t, id)
        if record.op == DOT | RUN and op_at(t, record.a) == LEAF:
            return record.a
        if record.op & RUN:
            id = steps_of(record).first
        if id <= 1:
            break
        id -= 1
    return 0


cdef inline Kept **bucket_of(uint64_t key) noexcept nogil:
    return &buckets[(key * <uint64_t>0x9E3779B97F4A7C15) >> 54]


cdef size_t use_plan(Tape *t, uint32_t root, Plan *plan) except? 0:
    """Fill `plan` and the order of the search, if a graph like that below `root` is known. Return that order's length, else 0."""
    cdef uint64_t key = key_of(t, root)
    cdef Kept *kept = bucket_of(key)[0]
    cdef uint32_t matrix, low
    cdef size_t i
    if kept == NULL:
        return 0
    doubt_outdated(t)
    matrix = matrix_of(t, root)
    while kept != NULL:
        if kept.key == key and kept.matrix == matrix and kept.size < root and is_like(t, kept, root - kept.size):
            break
        kept = kept.next
    if kept == NULL:
        return 0
    global uses, reused
    uses += 1
    kept.used = uses
    reused += kept.size
    low = root - kept.size
    make_room(max(kept.run_count, <size_t>64), False)
    for i in range(kept.run_count):
        search.order[i].first = kept.runs[i].first + low
        search.order[i].count = kept.runs[i].count
    room_for(<void **>&plan.tasks, &plan.room, kept.plan.length, sizeof(Task))
    room_for(<void **>&plan.pivots, &plan.pivot_room, kept.plan.pivot_count, sizeof(Pivot))
    memcpy(plan.tasks, kept.plan.tasks, kept.plan.length * sizeof(Task))
    for i in range(kept.plan.length):
        plan.tasks[i].first += low
    for i in range(kept.plan.pivot_count):
        plan.pivots[i].user = kept.plan.pivots[i].user + low
        plan.pivots[i].row = kept.plan.pivots[i].row + low
    plan.length = kept.plan.length
    plan.at_leaves = kept.plan.at_leaves
    plan.pivot_count = kept.plan.pivot_count
    return kept.run_count


cdef bint is_like(Tape *t, Kept *kept, uint32_t low) noexcept nogil:
    """Whether the nodes from `low` on are those of a kept plan."""
    cdef const Part *part = kept.part
    cdef const Part *end = part + kept.length
    cdef const Node *record = record_at(t, low)
    cdef uint32_t id = low
    if kept.outside >= low:
        return False
    while part < end:
        if record.op != part.op or (part.op != LEAF and not is_part(t, kept, part, record, id, low)):
            return False
        id += part.count
        record += 2 if part.op & RUN else 1
        part += 1
    kept.sure = kept.sure or are_still_leaves(t, kept)
    return kept.sure


cdef inline bint is_part(Tape *t, const Kept *kept, const Part *part, const Node *record, uint32_t id,
                         uint32_t low) noexcept nogil:
    cdef const Steps *steps = steps_of(record)
    cdef uint32_t op = part.op & ~<uint32_t>RUN
    cdef uint32_t a = part.a + (low if part.flags & MOVES_A else 0)
    cdef uint32_t b = part.b + (low if part.flags & MOVES_B else 0)
    if part.op & RUN and (
            steps.first != id or steps.count != part.count or steps.step_a != part.step_a or steps.step_b != part.step_b):
        return False
    if part.flags & ANY_OPERAND:
        return record.a - a < part.n and record.argument.pair.b == b
    if not is_free(t, kept, record.a, part.count, low) if part.flags & SIDE_A else record.a != a:
        return False
    if op <= LAST_UNARY:
        return not part.flags & SAME_CONSTANT or record.argument.stamp == record_at(t, id - 1).argument.stamp or (
            FAULT(b"plans: one constant"))
    if op != SUM:
        if not is_free(t, kept, record.argument.pair.b, part.count, low) if part.flags & SIDE_B else record.argument.pair.b != b:
            return False
    return op <= LAST_BINARY or record.argument.pair.n == part.n


cdef bint is_free(Tape *t, const Kept *kept, uint32_t start, uint32_t n, uint32_t low) noexcept nogil:
    """Whether [start, start + n) are leaves below the graph, which the plan does not use otherwise."""
    cdef uint32_t i
    cdef size_t above
    if start + n > low:
        return False
    for i in range(start, start + n):
        if op_at(t, i) != LEAF and not FAULT(b"plans: any leaves are leaves"):
            return False
    above = first_above(kept.spans, kept.span_count, start)
    return above == kept.span_count or kept.spans[above].first >= start + n or (
        FAULT(b"plans: leaves that may be any are used by nothing else"))


cdef void doubt_outdated(Tape *t) noexcept:
    """Look again, before the next use, whether the leaves of plans are leaves, where others may have taken their place."""
    cdef size_t i
    cdef Kept *kept
    if t.least_top > highest_outside:
        return
    for i in range(BUCKETS):
        kept = buckets[i]
        while kept != NULL:
            kept.sure &= kept.outside < t.least_top
            kept = kept.next
    t.least_top = UINT32_MAX


cdef bint are_still_leaves(Tape *t, const Kept *kept) noexcept nogil:
    cdef size_t i
    cdef uint32_t id
    for i in range(kept.span_count):
        for id in range(kept.spans[i].first, min(kept.spans[i].first + kept.spans[i].count, kept.outside + 1)):
            if op_at(t, id) != LEAF and not FAULT(b"plans: leaves are still leaves"):
                return False
    return True


cdef void drop(Kept **link) noexcept:
    global nbytes, kept_count
    cdef Kept *kept = link[0]
    link[0] = kept.next
    nbytes -= kept.bytes
    kept_count -= 1
    free_kept(kept)


cdef void free_kept(Kept *kept) noexcept:
    free(kept.part)
    free(kept.runs)
    free(kept.spans)
    free(kept.plan.tasks)
    free(kept.plan.pivots)
    free(kept)


cdef void drop_surplus(Kept **bucket) noexcept:
    """Where there are too many plans of the key and the matrix of the first one, drop the one that was used least lately."""
    cdef const Kept *first = bucket[0]
    cdef Kept **link = bucket
    cdef Kept **oldest = bucket
    cdef uint32_t count = 0
    while link[0] != NULL:
        if link[0].key == first.key and link[0].matrix == first.matrix:
            count += 1
            if link[0].used < oldest[0].used:
                oldest = link
        link = &link[0].next
    if count > MOST_OF_A_KEY:
        drop(oldest)


cdef void drop_oldest(uint64_t before) noexcept:
    """Drop the plans used last before then."""
    cdef size_t i
    cdef Kept **link
    for i in range(BUCKETS):
        link = &buckets[i]
        while link[0] != NULL:
            if link[0].used < before:
                drop(link)
            else:
                link = &link[0].next


cdef void keep_plan(Tape *t, uint32_t root, const Run *order, size_t length, const Plan *plan) noexcept:
    """Keep the plan just made for `root`, from the `order`. Where that cannot be, or memory is short, nothing happens."""
    global nbytes, uses, kept_count, highest_outside
    cdef Kept *kept = <Kept *>calloc(1, sizeof(Kept))
    cdef Kept **bucket
    if kept == NULL:
        return
    if not describe(t, kept, root, order, plan) or not copy_plan(kept, order, length, plan) or (
            kept.bytes > SMALL and kept.bytes > MOST_OF_A_NODE * <size_t>kept.size) or kept.bytes > MOST_BYTES // 2:
        free_kept(kept)
        return
    uses += 1
    kept.used = uses
    kept.sure = True
    highest_outside = max(highest_outside, kept.outside)
    kept.key = key_of(t, root)
    kept.matrix = matrix_of(t, root)
    nbytes += kept.bytes
    kept_count += 1
    bucket = bucket_of(kept.key)
    kept.next = bucket[0]
    bucket[0] = kept
    drop_surplus(bucket)
    if nbytes > MOST_BYTES:
        drop_oldest(uses - kept_count // 2)
    if nbytes > MOST_BYTES:
        drop_oldest(uses)


cdef bint describe(Tape *t, Kept *kept, uint32_t root, const Run *order, const Plan *plan) noexcept:
    """Write the parts, from the lowest node to the root. False if no plan with them can be kept."""
    cdef uint32_t low = scratch.low
    cdef uint32_t id = low
    cdef const Node *record = record_at(t, low)
    kept.size = root - low
    kept.part = <Part *>malloc((t.record_of[root] - t.record_of[low] + <size_t>1) * sizeof(Part))
    if kept.part == NULL:
        return False
    while id <= root:
        if not describe_part(t, &kept.part[kept.length], record, id, order) or not let_any(&kept.part[kept.length], id, plan):
            return False
        id += kept.part[kept.length].count
        kept.length += 1
        record += 2 if record.op & RUN else 1
    if id != root + 1:
        return False
    try_reallocate(<void **>&kept.part, kept.length, sizeof(Part))      # to fewer
    kept.bytes = sizeof(Kept) + kept.length * sizeof(Part)
    return list_spans(kept)


cdef bint list_spans(Kept *kept) noexcept:
    """List what must be the leaves that it is now: all that is below the graph, but for rows that may be any."""
    cdef size_t i
    cdef size_t count = 0
    cdef const Part *part
    cdef uint32_t op
    cdef Run *spans = <Run *>malloc((2 * kept.length + 1) * sizeof(Run))
    kept.spans = spans
    if spans == NULL:
        return False
    for i in range(kept.length):
        part = &kept.part[i]
        op = part.op & ~<uint32_t>RUN
        if op == LEAF:
            continue
        if not part.flags & (MOVES_A | SIDE_A):
            count += add_span(&spans[count], part.a, part.step_a, part)
        if op > LAST_UNARY and op != SUM and not part.flags & (MOVES_B | SIDE_B):
            count += add_span(&spans[count], part.b, part.step_b, part)
    kept.span_count = join_runs(spans, count)
    if count > 0:
        kept.outside = spans[kept.span_count - 1].first + spans[kept.span_count - 1].count - 1
    try_reallocate(<void **>&kept.spans, kept.span_count + 1, sizeof(Run))
    kept.bytes += (kept.span_count + 1) * sizeof(Run)
    return True


cdef inline size_t add_span(Run *span, uint32_t start, uint32_t step, const Part *part) noexcept:
    """Write the operands of a part on one side, which are below the graph. Return 1."""
    span.first = start
    span.count = (part.count - 1) * step + (part.n if part.op & ~<uint32_t>RUN > LAST_BINARY else 1)
    return 1


cdef bint describe_part(Tape *t, Part *part, const Node *record, uint32_t id, const Run *order) noexcept:
    """Write what makes the run or node at `id`. False if no plan with it can be kept."""
    cdef uint32_t low = scratch.low
    cdef uint32_t op = record.op & ~<uint32_t>RUN
    cdef bint second = op > LAST_UNARY and op != SUM
    part.op = record.op
    part.count = 1
    part.flags = part.a = part.b = part.n = part.step_a = part.step_b = 0
    if record.op & RUN:
        part.count = steps_of(record).count
        part.step_a = steps_of(record).step_a
        part.step_b = steps_of(record).step_b
        if steps_of(record).first != id:
            return False
    if op == LEAF:
        return True
    if op > DOT and op != DOT_STRIDED:
        return False
    part.a = record.a
    if op > LAST_UNARY:
        part.b = record.argument.pair.b if second else 0
        part.n = record.argument.pair.n
    elif op != ADD_CONSTANT and id > low and op_at(t, id - 1) == op and (
            record_at(t, id - 1).argument.stamp == record.argument.stamp):
        part.flags = SAME_CONSTANT
    if op != DOT_STRIDED:               # its operands are computed
        part.flags |= any_leaves(id, part.count, order)
        if straddles(part.a, part.step_a, part) or (second and straddles(part.b, part.step_b, part)):
            return False
    if part.a >= low:
        part.a -= low
        part.flags |= MOVES_A
    if second and part.b >= low:
        part.b -= low
        part.flags |= MOVES_B
    return True


cdef bint straddles(uint32_t start, uint32_t step, const Part *part) noexcept:
    """Whether of these operands some lie below the lowest node, and some do not."""
    cdef uint32_t length = part.n if part.op & ~<uint32_t>RUN > LAST_BINARY else 1
    cdef uint64_t end = start + (part.count - 1) * <uint64_t>step + length
    return step > UINT32_MAX // 2 or (start < scratch.low and end > scratch.low)


cdef uint32_t any_leaves(uint32_t id, uint32_t count, const Run *order) noexcept:
    """Return the sides of these nodes where any leaves do: none, if an entry has nodes of other parts, too."""
    cdef uint32_t sides = BOTH
    cdef uint32_t end = id + count
    cdef uint32_t entry
    cdef const uint32_t *entry_of = scratch.entry_of - scratch.low
    if ((id > scratch.low and entry_of[id - 1] == entry_of[id]) or entry_of[end] == entry_of[end - 1]) and (
            not FAULT(b"plans: rows of any leaves are parts")):
        return 0
    while id < end and sides != 0:
        entry = entry_of[id]
        if entry == 0:
            return 0
        sides &= scratch.entry[entry - 1].any_leaves
        id = order[entry - 1].first + order[entry - 1].count
    return sides


cdef bint let_any(Part *part, uint32_t id, const Plan *plan) noexcept:
    """Let any node of a pivot's row be the first operand of its user, if this part is one. False if no plan can be kept.

    What is below the row may not use the matrix: a sum passes its operands, which are those of the pivot first.
    """
    cdef uint32_t entry = scratch.entry_of[id - scratch.low]
    cdef uint32_t pivot = scratch.entry[entry - 1].user_of if entry else 0
    cdef const PivotRow *row = &scratch.rows[pivot - 1]
    if pivot == 0 or not is_come_to_by_its_user(row):
        return True
    if row.shared and not FAULT(b"plans: nothing else uses a pivot's matrix"):
        return True
    if part.op != MUL:                  # one of a run
        return False
    part.a = plan.pivots[pivot - 1].row - scratch.low
    part.n = row.count
    part.flags = ANY_OPERAND | MOVES_A | (part.flags & MOVES_B)
    return True


cdef int compare_runs(const void *x, const void *y) noexcept nogil:
    cdef uint32_t a = (<const Run *>x).first
    cdef uint32_t b = (<const Run *>y).first
    return (a > b) - (a < b)


cdef size_t join_runs(Run *runs, size_t n) noexcept nogil:
    """Sort `n` runs, and let those that overlap or follow each other be one. Return how many there are then."""
    cdef size_t count = 0
    cdef size_t i
    cdef Run *last = runs
    qsort(runs, n, sizeof(Run), compare_runs)
    for i in range(n):
        if count > 0 and runs[i].first <= last.first + last.count:
            last.count = max(last.count, runs[i].first + runs[i].count - last.first)
        else:
            last = &runs[count]
            last[0] = runs[i]
            count += 1
    return count


cdef bint copy_plan(Kept *kept, const Run *order, size_t length, const Plan *plan) noexcept:
    """Copy order and plan, with distances from the lowest node in place of ids."""
    cdef uint32_t low = scratch.low
    cdef size_t i
    kept.runs = <Run *>malloc(length * sizeof(Run))
    kept.plan.tasks = <Task *>malloc((plan.length + 1) * sizeof(Task))
    kept.plan.pivots = <Pivot *>malloc((plan.pivot_count + 1) * sizeof(Pivot))
    if kept.runs == NULL or kept.plan.tasks == NULL or kept.plan.pivots == NULL:
        return False
    kept.run_count = list_nodes(kept.runs, kept.size, order)
    try_reallocate(<void **>&kept.runs, kept.run_count, sizeof(Run))
    memcpy(kept.plan.tasks, plan.tasks, plan.length * sizeof(Task))
    for i in range(plan.length):
        kept.plan.tasks[i].first -= low
    for i in range(plan.pivot_count):
        kept.plan.pivots[i].user = plan.pivots[i].user - low
        kept.plan.pivots[i].row = plan.pivots[i].row - low
    kept.plan.length = plan.length
    kept.plan.at_leaves = plan.at_leaves
    kept.plan.pivot_count = plan.pivot_count
    kept.bytes += kept.run_count * sizeof(Run) + plan.length * sizeof(Task) + plan.pivot_count * sizeof(Pivot)
    return True


cdef size_t list_nodes(Run *runs, uint32_t size, const Run *order) noexcept:
    """Write the nodes of the order, by their distances. Return how many runs they are."""
    cdef size_t count = 0
    cdef uint32_t i = 0
    cdef uint32_t end = UINT32_MAX
    cdef const Run *entry
    while i <= size:
        if scratch.entry_of[i] == 0:
            i += 1
            continue
        entry = &order[scratch.entry_of[i] - 1]
        if i == end:
            runs[count - 1].count += entry.count
        else:
            runs[count] = Run(i, entry.count)
            count += 1
        i += entry.count
        end = i
    return count


cdef bint is_come_to_by_its_user(const PivotRow *row) noexcept:
    """Whether the search comes to the row through the pivot's user alone: to the pivot first, whichever it is."""
    cdef uint32_t k
    if FAULT(b"plans: a row is come to by the user of its pivot"):
        return True
    if scratch.entry[row.last_entry + 3].uses != 1 or scratch.entry[row.last_entry + 4].uses != 1:   # sum and power
        return False
    for k in range(row.first_entry, row.last_entry + 3):
        # exponentials are used by the sum, that of the pivot by its user, too; logits and differences once
        if scratch.entry[k].uses > 1 + (k == row.first_entry + 2):
            return False
    return True


def plan_counts():
    """Return how many plans are kept, their bytes, and how many nodes took one."""
    return kept_count, nbytes, reused


def forget_plans():
    """Drop all plans."""
    drop_oldest(UINT64_MAX)
