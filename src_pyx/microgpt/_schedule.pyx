"""A schedule for the entries of an order, in which nodes that follow each other on the tape stay together.

The search's order goes from position to position and from head to head. Backward is faster where it takes the same operation for
all of them at once. What may not change is, at each operand, the sequence of its users; and each node waits for all of them. So
each entry waits for those users of its operands that come before it, and of those that wait for nothing the highest on the
tape comes next.

What is added to leaves, nothing waits for. It comes last: for each set of leaves that entries use together, in the sequence of
the search.
"""

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, qsort
from libc.string cimport memset

from microgpt._order cimport search
from microgpt._tape cimport (
    ADD_CONSTANT, DOT, DOT_LISTED, DOT_STRIDED, EXP, LAST_BINARY, LAST_UNARY, LEAF, MUL, POW_CONSTANT, RUN, SUM, Node, Run, Tape,
    left_of_run, node_at, op_at, reallocate, record_at, steps_of, stride_at
)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    size_t count_alike(const void *nodes, size_t n)
    int highest_bit(uint64_t word)
    void PREFETCH(const void *p)

cdef size_t fewest = 64             # nodes that are worth a schedule
cdef size_t enough = 3              # nodes of an entry, on average, from which on one pays

cdef enum:
    WORD = 64                       # bits
    AHEAD = 16                      # entries, for the processor to look ahead

cdef int room_for(void **array, size_t *room, size_t n, size_t size) except -1:
    if n > room[0]:
        n = max(n, room[0] + room[0] // 2)
        reallocate(array, n, size)
        room[0] = n
    return 0


cdef int schedule(Tape *t, const Run *order, size_t length, Plan *plan) except -1:
    """Fill `plan` with tasks for the `length` entries of `order`. Return whether that was worth it; else it is empty."""
    cdef size_t nodes = 0
    cdef size_t k
    cdef uint32_t low = UINT32_MAX
    cdef uint32_t high = 0
    plan.length = plan.at_leaves = plan.pivot_count = 0
    for k in range(length):
        nodes += order[k].count
        low = min(low, order[k].first)
        high = max(high, order[k].first + order[k].count)
    if nodes < fewest or nodes < enough * length:
        return False
    scratch.low = low
    scratch.joined = 0
    scratch.edges = scratch.at_leaves_length = scratch.slot_count = 0
    room_for(<void **>&scratch.entry, &scratch.entry_room, length + 1, sizeof(Waiting))
    room_for(<void **>&scratch.entry_of, &scratch.node_room, high - low + 1, sizeof(uint32_t))
    memset(scratch.entry_of, 0, (high - low + 1) * sizeof(uint32_t))
    clear_slots()
    for k in range(length):
        PREFETCH(record_at(t, order[min(k + AHEAD, length - 1)].first))
        if not add_entry(t, order, <uint32_t>k, plan):
            return False
    scratch.entry[length].first_edge = <uint32_t>scratch.edges
    note_any_leaves()
    room_for(<void **>&plan.tasks, &plan.room, length + 2 * scratch.at_leaves_length, sizeof(Task))
    list_computed(t, order, length, high - low, plan)
    list_leaves(t, order, plan)
    return True


cdef int add_entry(Tape *t, const Run *order, uint32_t k, Plan *plan) except -1:
    """Let the users of the operands of entry `k` that come later in the order, and so earlier in backward, go first.

    Return 0 where some of the operands of one side are leaves, and some are not.
    """
    cdef const Run *run = &order[k]
    cdef Node node = node_at(t, run.first)
    cdef Node next
    cdef uint32_t i, length, stride, step_a = 0, step_b = 0
    scratch.entry[k].user = k
    scratch.entry[k].waits = scratch.entry[k].uses = 0
    scratch.entry[k].user_of = 0
    scratch.entry[k].pivot = 0
    scratch.entry[k].any_leaves = 0
    scratch.entry[k].heir = k
    scratch.entry[k].rows = 0
    scratch.entry[k].group = k
    if scratch.joined < search.joined_length and search.joined[scratch.joined] == k:
        scratch.entry[k].group = scratch.entry[k - 1].group
        scratch.joined += 1
    scratch.entry[k].first_edge = <uint32_t>scratch.edges
    for i in range(run.first - scratch.low, run.first - scratch.low + run.count):
        scratch.entry_of[i] = k + 1
    if run.count > 1:
        next = node_at(t, run.first + 1)
        step_a = next.a - node.a
        step_b = next.argument.pair.b - node.argument.pair.b
    length = node.argument.pair.n
    if node.op == LEAF:
        return False
    if node.op == MUL and run.count == 1:
        find_pivot(t, order, k, plan)
    if node.op <= LAST_BINARY:
        return add_side(t, order, k, SIDE_A, node.a, step_a, 1, run.count) and (
            node.op <= LAST_UNARY or add_side(t, order, k, SIDE_B, node.argument.pair.b, step_b, 1, run.count))
    if node.op == SUM:
        return add_side(t, order, k, SIDE_A, node.a, step_a, length, run.count)
    if node.op == DOT:
        return add_side(t, order, k, SIDE_A, node.a, step_a, length, run.count) and (
            add_side(t, order, k, SIDE_B, node.argument.pair.b, step_b, length, run.count))
    if node.op == DOT_STRIDED:
        stride = stride_at(t, run.first)
        if not add_span(t, order, k, node.a, length):
            return False
        return add_rows(t, order, k, node.argument.pair.b, stride, length, run.count)
    for i in range(run.count):
        if not add_listed(t, order, k, record_at(t, run.first + i)):
            return False
    return True


cdef int add_listed(Tape *t, const Run *order, uint32_t k, const Node *node) except -1:
    cdef uint32_t i
    for i in range(2 * node.argument.pair.n if node.op == DOT_LISTED else node.argument.pair.n):
        if not add_span(t, order, k, t.pool[node.a + i], 1):
            return False
    return True


cdef int add_side(Tape *t, const Run *order, uint32_t k, uint32_t side, uint32_t start, uint32_t step, uint32_t length,
                  uint32_t count) except -1:
    """Add operands [start, start + length) of entry `k`, and those a `step` further for each of its `count` nodes more."""
    cdef const Node *record = record_at(t, order[k].first)
    cdef uint32_t end = start + length
    cdef uint32_t i
    if step <= length and count > 1:
        end = start + (count - 1) * step + length
        count = 1
    if count > 1 and step > t.top:      # down the tape
        return False
    if is_leaf(t, start):
        for i in range(count):
            if not are_leaves(t, start + i * step, length if count > 1 else end - start):
                return False
        end = end if count == 1 else start + (count - 1) * step + length
        if side == SIDE_A and is_product(record):   # the parts of a product go together, to all rows of the matrix
            start = record.a
            end = start + steps_of(record).count * length
        add_use(k, side, start, end, op_at(t, order[k].first) > LAST_BINARY or end - start != order[k].count)
        return True
    return add_rows(t, order, k, start, step, count, length if count > 1 else end - start)


cdef int add_rows(Tape *t, const Run *order, uint32_t k, uint32_t start, uint32_t step, uint32_t count,
                  uint32_t length) except -1:
    """As `add_span`, for `count` spans: [start, start + length), and each a `step` further.

    Attention uses the rows that it used at the position before, and one more. These are not gone through again: what that entry
    was the last user of, entry `k` is now. (If that is more than these rows, something waits that need not, in the same order.)
    """
    cdef Waiting *this = &scratch.entry[k]
    cdef Waiting *last
    cdef uint32_t i = 0
    cdef uint32_t user
    if count > 1:
        this.rows, this.rows_start, this.rows_step, this.rows_length = count, start, step, length
        if not is_leaf(t, start):
            user = last_user(scratch.entry_of[start - scratch.low] - 1)
            last = &scratch.entry[user]
            if user != k and 0 < last.rows <= count and (
                    last.rows_start == start and last.rows_step == step and last.rows_length == length):
                add_edge(k, user)
                last.heir = k
                i = last.rows
    while i < count:
        if not add_span(t, order, k, start + i * step, length):
            return False
        i += 1
    return True


cdef inline bint has_rows_in(const Waiting *user, const Run *run) noexcept:
    return user.rows > 0 and user.rows_start < run.first + run.count and (
        run.first < user.rows_start + (user.rows - 1) * <uint64_t>user.rows_step + user.rows_length)


cdef inline uint32_t last_user(uint32_t entry) noexcept:
    """Return the last user of an entry so far, itself if there is none."""
    cdef uint32_t user = scratch.entry[entry].user
    while scratch.entry[user].heir != user:
        scratch.entry[user].heir = scratch.entry[scratch.entry[user].heir].heir
        user = scratch.entry[user].heir
    return user


cdef inline int add_edge(uint32_t k, uint32_t user) except -1:
    """Let entry `k` go before this user of its operands, which may have been the last one of many."""
    if scratch.edges == scratch.entry[k].first_edge or scratch.edge[scratch.edges - 1] != user:
        room_for(<void **>&scratch.edge, &scratch.edge_room, scratch.edges + 1, sizeof(uint32_t))
        scratch.edge[scratch.edges] = user
        scratch.edges += 1
        scratch.entry[user].waits += 1
    return 0


cdef inline bint is_product(const Node *record) noexcept:
    """Whether the nodes of a record are the products of rows that follow each other with one vector."""
    return record.op == DOT | RUN and steps_of(record).step_a == record.argument.pair.n and steps_of(record).step_b == 0


cdef bint are_leaves(Tape *t, uint32_t start, uint32_t n) noexcept:
    cdef uint32_t i
    for i in range(max(start, scratch.low), start + n):
        if op_at(t, i) != LEAF:
            return False
    return True


cdef int add_span(Tape *t, const Run *order, uint32_t k, uint32_t start, uint32_t n) except -1:
    """Let entry `k` go before the entries of its operands [start, start + n), and their users so far. Return 0 for a leaf."""
    cdef uint32_t i = start
    cdef uint32_t end = start + n
    cdef uint32_t entry, user
    while i < end:
        if is_leaf(t, i):
            return False
        entry = scratch.entry_of[i - scratch.low] - 1
        user = last_user(entry)
        if user != k:
            scratch.entry[entry].uses += 1
            scratch.entry[entry].user = k
            if has_rows_in(&scratch.entry[user], &order[entry]) and not FAULT(b"schedule: the last user of all rows"):
                scratch.entry[user].rows = 0
            add_edge(k, user)
        i = order[entry].first + order[entry].count
    return True


# Leaves.

cdef int clear_slots() except -1:
    if scratch.table_size == 0:
        reallocate(<void **>&scratch.table, 256, sizeof(uint32_t))
        scratch.table_size = 256
    memset(scratch.table, 0, scratch.table_size * sizeof(uint32_t))
    return 0


cdef inline size_t place_of(uint32_t start) noexcept:
    """Return where in the table the slot with this start is, or would be."""
    cdef size_t place = (start * <uint64_t>2654435761) >> 16 & (scratch.table_size - 1)
    while scratch.table[place] != 0 and scratch.slots[scratch.table[place] - 1].start != start:
        place = (place + 1) & (scratch.table_size - 1)
    return place


cdef int add_use(uint32_t k, uint32_t side, uint32_t start, uint32_t end, bint fixed) except -1:
    """Note that entry `k` uses the leaves [start, end). `fixed`: even if nothing else speaks against others."""
    cdef uint32_t slot = slot_of(start, end)
    room_for(<void **>&scratch.at_leaves, &scratch.at_leaves_room, scratch.at_leaves_length + 1, sizeof(AtLeaves))
    scratch.at_leaves[scratch.at_leaves_length] = AtLeaves(k, side, slot, fixed)
    scratch.at_leaves_length += 1
    return 0


cdef uint32_t slot_of(uint32_t start, uint32_t end) except? 0:
    """Return the number of the slot that begins at `start`, which reaches to `end` at least."""
    cdef size_t place = place_of(start)
    cdef uint32_t slot = scratch.table[place]
    cdef size_t i
    if slot == 0:
        if 2 * (scratch.slot_count + 1) > scratch.table_size:
            reallocate(<void **>&scratch.table, 2 * scratch.table_size, sizeof(uint32_t))
            scratch.table_size *= 2
            memset(scratch.table, 0, scratch.table_size * sizeof(uint32_t))
            for i in range(scratch.slot_count):
                scratch.table[place_of(scratch.slots[i].start)] = <uint32_t>i + 1
            place = place_of(start)
        if scratch.slot_count == scratch.slot_room:
            reallocate(<void **>&scratch.slots, 2 * scratch.slot_room + 64, sizeof(Slot))
            reallocate(<void **>&scratch.slot_order, 2 * scratch.slot_room + 64, sizeof(uint32_t))
            scratch.slot_room = 2 * scratch.slot_room + 64
        scratch.slots[scratch.slot_count] = Slot(start, end, 0, False)
        scratch.slot_count += 1
        slot = <uint32_t>scratch.slot_count
        scratch.table[place] = slot
    scratch.slots[slot - 1].end = max(scratch.slots[slot - 1].end, end)
    return slot - 1


cdef int compare_slots(const void *x, const void *y) noexcept nogil:
    cdef uint32_t a = scratch.slots[(<const uint32_t *>x)[0]].start
    cdef uint32_t b = scratch.slots[(<const uint32_t *>y)[0]].start
    return (a > b) - (a < b)


cdef void note_any_leaves() noexcept:
    """Note where a plan would be the same with other leaves.

    The search passes leaves by. Only rows that were taken together must not use the same ones (`take`).
    """
    cdef AtLeaves *use
    cdef size_t first = 0               # of the uses by rows that were taken together
    cdef size_t i, k
    for i in range(scratch.at_leaves_length):
        use = &scratch.at_leaves[i]
        if scratch.entry[use.entry].group != scratch.entry[scratch.at_leaves[first].entry].group:
            first = i
        if use.entry != scratch.at_leaves[first].entry and not FAULT(b"plans: rows taken together keep their leaves"):
            for k in range(first, i + 1):
                scratch.at_leaves[k].fixed = True
    for i in range(scratch.at_leaves_length):
        use = &scratch.at_leaves[i]
        scratch.slots[use.slot].fixed |= use.fixed


cdef uint32_t number_sets() noexcept:
    """Number the sets of leaves, each of slots that overlap; those that are not fixed are one. Return how many there are."""
    cdef uint32_t sets = 0
    cdef uint32_t end = 0
    cdef size_t i, k
    cdef size_t first = 0
    cdef bint fixed = True
    cdef Slot *slot
    for i in range(scratch.slot_count):
        scratch.slot_order[i] = <uint32_t>i
    qsort(scratch.slot_order, scratch.slot_count, sizeof(uint32_t), compare_slots)
    for i in range(scratch.slot_count):
        slot = &scratch.slots[scratch.slot_order[i]]
        if slot.start >= end or FAULT(b"schedule: leaves that overlap are one set"):
            if not fixed:
                sets -= 1
                for k in range(first, i):
                    scratch.slots[scratch.slot_order[k]].set = UINT32_MAX
            first = i
            fixed = False
            sets += 1
        end = max(end, slot.end)
        slot.set = sets - 1
        fixed |= slot.fixed
    if not fixed:
        sets -= 1
        for k in range(first, scratch.slot_count):
            scratch.slots[scratch.slot_order[k]].set = UINT32_MAX
    for i in range(scratch.slot_count):
        if scratch.slots[i].set == UINT32_MAX:
            scratch.slots[i].set = sets
        else:
            scratch.slots[i].fixed = True
    return sets + 1


cdef int list_leaves(Tape *t, const Run *order, Plan *plan) except -1:
    """Add the tasks at leaves, set after set, those of a set in the sequence of the search."""
    cdef uint32_t sets = number_sets()
    cdef uint32_t *next = NULL          # where the next task of each set goes; freed below
    cdef size_t k, tasks
    cdef uint32_t i, some
    cdef AtLeaves *use
    cdef Task *task
    reallocate(<void **>&next, sets + 1, sizeof(uint32_t))
    memset(next, 0, (sets + 1) * sizeof(uint32_t))
    for k in range(scratch.at_leaves_length):       # first, the sets that others than the parts of pivots' rows use
        use = &scratch.at_leaves[k]
        next[scratch.slots[use.slot].set] |= scratch.entry[use.entry].pivot == 0
    for k in range(plan.pivot_count):
        scratch.rows[k].shared = next[scratch.slots[scratch.rows[k].slot].set]
    note_other_matrices(t, plan, next, sets)
    memset(next, 0, (sets + 1) * sizeof(uint32_t))
    k = 0
    while k < scratch.at_leaves_length:
        use = &scratch.at_leaves[k]
        some = shared_sets(k)
        if not is_part(use.entry):
            next[scratch.slots[use.slot].set + 1] += 1
        k += some
    for i in range(sets):
        next[i + 1] += next[i]
    tasks = next[sets]
    k = scratch.at_leaves_length
    # From the last user to the first. Both sides of an entry stand side by side, the first one first.
    while k > 0:
        k -= 1
        use = &scratch.at_leaves[k]
        some = 1
        if use.side == SIDE_B and k > 0 and use[-1].entry == use.entry and shared_sets(k - 1) == 2:
            k -= 1
            use -= 1
            some = 2
        if not scratch.slots[use.slot].fixed:
            scratch.entry[use.entry].any_leaves |= BOTH if some == 2 else use.side
        if is_part(use.entry):
            continue
        i = scratch.slots[use.slot].set
        task = &plan.tasks[plan.at_leaves + next[i]]
        next[i] += 1
        task.first = order[use.entry].first
        task.count = order[use.entry].count
        task.sides = BOTH if some == 2 else use.side
        task.leaves = i
        if scratch.entry[use.entry].pivot:
            task.first = scratch.rows[scratch.entry[use.entry].pivot - 1].first
            task.count = scratch.rows[scratch.entry[use.entry].pivot - 1].count
    plan.length = plan.at_leaves + join_products(t, &plan.tasks[plan.at_leaves], tasks)
    free(next)
    return 0


cdef size_t join_products(Tape *t, Task *tasks, size_t n) noexcept:
    """Let tasks that follow each other be one where they are at rows of a matrix, those of one product. Return how many are left.

    Each row gets its contribution from one of them, so their sequence does not matter.
    """
    cdef size_t count = 0
    cdef size_t i
    cdef Task *last = tasks
    for i in range(n):
        if count > 0 and tasks[i].leaves == last.leaves and tasks[i].sides == last.sides == SIDE_A and (
                t.record_of[tasks[i].first] == t.record_of[last.first] and is_product(record_at(t, last.first))) and (
                tasks[i].first + tasks[i].count == last.first or last.first + last.count == tasks[i].first):
            last.first = min(last.first, tasks[i].first)
            last.count += tasks[i].count
        else:
            last = &tasks[count]
            last[0] = tasks[i]
            count += 1
    return count


cdef void note_other_matrices(Tape *t, const Plan *plan, uint32_t *first, uint32_t sets) noexcept:
    """Note as shared, too, what pivots use of which not all have the same matrix; `first` is room for a number of each set."""
    cdef size_t k
    cdef uint32_t set
    memset(first, 0, sets * sizeof(uint32_t))
    for k in range(plan.pivot_count):
        set = scratch.slots[scratch.rows[k].slot].set
        if first[set] == 0:
            first[set] = <uint32_t>k + 1
        elif first[set] != UINT32_MAX and not have_one_matrix(t, &scratch.rows[k], &scratch.rows[first[set] - 1]):
            first[set] = UINT32_MAX
    for k in range(plan.pivot_count):
        scratch.rows[k].shared |= first[scratch.slots[scratch.rows[k].slot].set] == UINT32_MAX


cdef inline bint have_one_matrix(Tape *t, const PivotRow *x, const PivotRow *y) noexcept:
    cdef Node node = node_at(t, x.first)
    cdef Node other = node_at(t, y.first)
    return node.a == other.a and x.count == y.count and node.argument.pair.n == other.argument.pair.n


cdef inline uint32_t shared_sets(size_t k) noexcept:
    """Return 2 if the uses `k` and `k + 1` are the two sides of one entry at leaves of one set, which are one task; else 1."""
    cdef AtLeaves *use = &scratch.at_leaves[k]
    if k + 1 < scratch.at_leaves_length and use[1].entry == use.entry and (
            scratch.slots[use.slot].set == scratch.slots[use[1].slot].set) and (
            not FAULT(b"schedule: both sides of a set at once")):
        return 2
    return 1


# Pivots.

cdef inline bint is_part(uint32_t entry) noexcept:
    """Whether it is a part of a pivot's row, but for the last one, which stands for all."""
    return scratch.entry[entry].pivot != 0 and scratch.rows[scratch.entry[entry].pivot - 1].last_entry != entry


cdef int find_pivot(Tape *t, const Run *order, uint32_t k, Plan *plan) except -1:
    """Note it, if entry `k` is the probability of a cross entropy (_functions.pyx) whose logits are a product, come to by it.

    The search goes to the exponential of the target first, from there to its logit and what is below, and then to the others in
    turn. So the logit of the target is the first one of its row, whichever it is: what is below all of them gets its contribution
    last. A plan has a task for the whole row.
    """
    cdef Node probability = node_at(t, order[k].first)
    cdef Node power, sum, first, second
    cdef uint32_t e, d, z, n, i, found, target, part, matrix
    cdef size_t use
    if k < 5 or order[k - 1].count != 1 or order[k - 1].first != probability.argument.pair.b or order[k - 2].count != 1:
        return False
    power = node_at(t, order[k - 1].first)
    if power.op != POW_CONSTANT or power.a != order[k - 2].first or op_at(t, power.a) != SUM:
        return False
    sum = node_at(t, power.a)
    e, n = sum.a, sum.argument.pair.n
    target = probability.a - e
    if target >= n or op_at(t, e) != EXP:
        return False
    d = node_at(t, e).a
    if is_leaf(t, d) or op_at(t, d) != ADD_CONSTANT:
        return False
    z = node_at(t, d).a
    if is_leaf(t, z) or op_at(t, z) != DOT:
        return False
    first = node_at(t, z)
    if not is_leaf(t, first.a) or is_leaf(t, first.argument.pair.b):
        return False
    if n > 1:
        second = node_at(t, z + 1)
        if second.a - first.a != first.argument.pair.n or second.argument.pair.b != first.argument.pair.b:
            return False
    # The parts of the row, from the last one: the target's is the first.
    found = 0
    i = k - 2
    while found < n:
        if i < 3:
            return False
        i -= 3
        part = order[i + 2].first - e
        if part >= n or order[i + 2].count != order[i].count or order[i + 1].count != order[i].count or (
                order[i].first != z + part or order[i + 1].first != d + part or order[i].count > n - part):
            return False
        found += order[i].count
        if part == target and (order[i].count == 1 or target == 0) and found == n:
            break
        if part <= target < part + order[i].count:
            return False
    if found != n or not is_row(t, e, n) or not is_row(t, d, n) or not is_row(t, z, n):
        return False
    room_for(<void **>&plan.pivots, &plan.pivot_room, plan.pivot_count + 1, sizeof(Pivot))
    room_for(<void **>&scratch.rows, &scratch.row_room, plan.pivot_count + 1, sizeof(PivotRow))
    matrix = slot_of(first.a, first.a + n * first.argument.pair.n)
    plan.pivots[plan.pivot_count] = Pivot(order[k].first, e)
    scratch.rows[plan.pivot_count] = PivotRow(z, n, i, k - 5, n, matrix, False)
    plan.pivot_count += 1
    scratch.entry[k].user_of = <uint32_t>plan.pivot_count
    use = scratch.at_leaves_length
    while use > 0 and scratch.at_leaves[use - 1].entry >= i:
        use -= 1
        scratch.at_leaves[use].slot = matrix
    for part in range(i, k - 2, 3):
        scratch.entry[part].pivot = <uint32_t>plan.pivot_count
    return True


cdef inline bint is_row(Tape *t, uint32_t first, uint32_t n) noexcept:
    """Whether these nodes are of one op, operands each the same step further."""
    cdef const Node *record = record_at(t, first)
    if record.op & RUN:
        return left_of_run(t, first) >= n
    return n == 1 or (n <= t.record_top - t.record_of[first] and count_alike(record, n) == n)


# Computed nodes.

cdef inline void set_ready(uint32_t id) noexcept nogil:
    cdef uint32_t bit = id - scratch.low
    scratch.ready[bit // WORD] |= <uint64_t>1 << (bit % WORD)
    scratch.ready_words[bit // WORD // WORD] |= <uint64_t>1 << (bit // WORD % WORD)


cdef int list_computed(Tape *t, const Run *order, size_t length, uint32_t nodes, Plan *plan) except -1:
    """Add the tasks at computed nodes."""
    cdef size_t words = nodes // WORD + 1
    cdef size_t upper = words // WORD + 1
    cdef size_t top = upper - 1
    cdef size_t word
    cdef uint32_t bit, k, i
    cdef PivotRow *row
    room_for(<void **>&scratch.ready, &scratch.ready_room, words + upper, sizeof(uint64_t))
    memset(scratch.ready, 0, (words + upper) * sizeof(uint64_t))
    scratch.ready_words = scratch.ready + words
    set_ready(order[length - 1].first)
    while True:
        while top > 0 and scratch.ready_words[top] == 0:
            top -= 1
        if scratch.ready_words[top] == 0:
            break
        word = top * WORD + highest_bit(scratch.ready_words[top])
        bit = highest_bit(scratch.ready[word])
        scratch.ready[word] ^= <uint64_t>1 << bit
        if scratch.ready[word] == 0:
            scratch.ready_words[top] ^= <uint64_t>1 << (word % WORD)
        k = scratch.entry_of[word * WORD + bit] - 1
        if scratch.entry[k].pivot:
            row = &scratch.rows[scratch.entry[k].pivot - 1]
            row.left -= order[k].count
            if row.left == 0:
                plan.tasks[plan.length] = Task(row.first, row.count, SIDE_B | PIVOT, scratch.entry[k].pivot - 1)
                plan.length += 1
        else:
            add_task(t, plan, &order[k], sides_of(t, &order[k]), scratch.entry[k].user_of > 0)
        for i in range(scratch.entry[k].first_edge, scratch.entry[k + 1].first_edge):
            scratch.entry[scratch.edge[i]].waits -= 1
            if scratch.entry[scratch.edge[i]].waits == 0:
                set_ready(order[scratch.edge[i]].first)
                top = max(top, (order[scratch.edge[i]].first - scratch.low) // WORD // WORD)
    plan.at_leaves = plan.length
    return 0


cdef inline uint32_t sides_of(Tape *t, const Run *run) noexcept:
    """Return which sides of an entry are computed nodes."""
    cdef Node node = node_at(t, run.first)
    cdef uint32_t sides
    if node.op > DOT:
        return BOTH
    sides = 0 if is_leaf(t, node.a) else SIDE_A
    if node.op > LAST_UNARY and node.op != SUM and not is_leaf(t, node.argument.pair.b):
        sides |= SIDE_B
    return sides


cdef inline void add_task(Tape *t, Plan *plan, const Run *run, uint32_t sides, bint alone) noexcept:
    """Add a task for an entry: to the last one, where the two are one run, unless one of them is to be alone."""
    cdef Task *last = plan.tasks + plan.length - 1 if plan.length > 0 else NULL
    if sides == 0:
        return
    if last != NULL and last.first == run.first + run.count and last.sides == sides and not (
            (alone or last.leaves) and not FAULT(b"schedule: users of pivots are alone")) and is_one_run(t, run, last):
        last.first = run.first
        last.count += run.count
        return
    plan.tasks[plan.length] = Task(run.first, run.count, sides, alone)
    plan.length += 1


cdef uint32_t highest_operand(Tape *t, uint32_t id) noexcept:
    """Return the highest operand of a node whose op lists none one by one."""
    cdef Node node = node_at(t, id)
    cdef uint32_t n = node.argument.pair.n
    if node.op <= LAST_UNARY:
        return node.a
    if node.op <= LAST_BINARY:
        return max(node.a, node.argument.pair.b)
    if node.op == SUM:
        return node.a + n - 1
    if node.op == DOT:
        return max(node.a, node.argument.pair.b) + n - 1
    if node.op == DOT_STRIDED:
        return max(node.a + n - 1, node.argument.pair.b + (n - 1) * stride_at(t, id))
    return UINT32_MAX


cdef bint is_one_run(Tape *t, const Run *run, const Task *next) noexcept:
    """Whether the nodes of `run` and the task, which follow each other, are of one op, operands each the same step further, and
    below all of them.
    """
    cdef uint32_t end = run.first + run.count
    cdef Node node, last, first
    cdef uint32_t step_a, step_b
    if t.record_of[end - 1] == t.record_of[end] and (next.count == 1 or t.record_of[end + 1] == t.record_of[end]):
        return highest_operand(t, end + next.count - 1) < run.first or FAULT(b"schedule: operands are below a run")
    if (record_at(t, run.first).op | RUN) != (record_at(t, end).op | RUN):
        return False
    node = node_at(t, run.first)
    last = node_at(t, end - 1)
    first = node_at(t, end)
    step_a = first.a - last.a
    step_b = first.argument.pair.b - last.argument.pair.b
    if not FAULT(b"schedule: operands are below all of a run") and (
            highest_operand(t, end) >= run.first or highest_operand(t, end + next.count - 1) >= run.first):
        return False
    if node.op == DOT_STRIDED:
        return step_a == 0 and step_b == 1 and stride_at(t, end - 1) == stride_at(t, end) and (
            last.argument.pair.n == first.argument.pair.n)
    if node.op > DOT:
        return False
    if step_a > t.top or (node.op > LAST_UNARY and step_b > t.top):
        return False                    # down the tape
    if node.op <= LAST_UNARY:
        if node.op != ADD_CONSTANT and last.argument.stamp != first.argument.stamp:
            return False
    elif node.argument.pair.n != first.argument.pair.n:
        return False
    return (run.count == 1 or goes_by(t, run.first, step_a, step_b)) and (next.count == 1 or goes_by(t, end, step_a, step_b))


cdef inline bint goes_by(Tape *t, uint32_t id, uint32_t step_a, uint32_t step_b) noexcept:
    """Whether the operands of node `id` and of the one after it are that far from each other."""
    cdef Node node = node_at(t, id)
    cdef Node next = node_at(t, id + 1)
    if next.a - node.a != step_a:
        return False
    if node.op <= LAST_UNARY:
        return node.op == ADD_CONSTANT or node.argument.stamp == next.argument.stamp
    return next.argument.pair.b - node.argument.pair.b == step_b


def set_worth(nodes=64, nodes_of_an_entry=3):
    """Set how many nodes, in all and of an entry on average, are worth a schedule: fewer for tests."""
    global fewest, enough
    fewest = nodes
    enough = nodes_of_an_entry
