"""The tape: memory of every node, told in the verbs reserve, put, rewind and collect."""

from cpython.ref cimport Py_DECREF
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cdef extern from "Python.h":
    int Py_AddPendingCall(int (*function)(void *), void *argument)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)

cdef enum:
    FIRST_CAPACITY = 1 << 12


cdef bint try_reallocate(void **array, size_t n, size_t size) noexcept:
    """Give `array` room for `n` items of `size` bytes. Where there is none it stays as it was. The caller owns and frees it."""
    cdef void *moved = realloc(array[0], n * size)
    if moved == NULL:
        return False
    array[0] = moved
    return True


cdef int reallocate(void **array, size_t n, size_t size) except -1:
    """As `try_reallocate`, but raise MemoryError."""
    if not try_reallocate(array, n, size):
        raise MemoryError(f"no memory for an array of {n * size} bytes on the tape")
    return 0


cdef void write_node(const Node *record, uint32_t id, Node *node) noexcept nogil:
    """Write how the node `id` of a run was computed."""
    cdef const Steps *steps = steps_of(record)
    cdef uint32_t k = id - steps.first
    node[0] = record[0]
    node.op ^= RUN
    if node.op != DOT_STRIDED:
        node.a += k * steps.step_a
    if node.op > LAST_UNARY:
        node.argument.pair.b += k * steps.step_b


cdef inline bint eight_without_mark(const Tape *t, uint32_t i) noexcept:
    """Whether none of the nodes [i, i + 8) is marked LIVE."""
    cdef uint64_t seen
    memcpy(&seen, &t.seen[i], 8)
    return not seen & LIVE * <uint64_t>0x0101010101010101


cdef inline bint eight_without_handle(const Tape *t, uint32_t i) noexcept:
    """Whether none of the nodes [i, i + 8) has a handle."""
    cdef PyObject **handle = &t.handle[i]
    return not (<size_t>handle[0] | <size_t>handle[1] | <size_t>handle[2] | <size_t>handle[3]
                | <size_t>handle[4] | <size_t>handle[5] | <size_t>handle[6] | <size_t>handle[7])


cdef inline void mark_live(Tape *t, uint32_t start, uint32_t n) noexcept:
    cdef uint32_t i
    for i in range(start, start + n):
        t.seen[i] |= LIVE


cdef void mark_operands(Tape *t, uint32_t i) noexcept:
    cdef Node room
    cdef const Node *node = look_at(t, i, &room)
    cdef uint32_t n, k
    if node.op == LEAF:
        return
    n = node.argument.pair.n
    if node.op <= LAST_BINARY:
        t.seen[node.a] |= LIVE
        if node.op > LAST_UNARY:
            t.seen[node.argument.pair.b] |= LIVE
    elif node.op == SUM or node.op == DOT:
        mark_live(t, node.a, n)
        if node.op == DOT:
            mark_live(t, node.argument.pair.b, n)
    elif node.op == DOT_STRIDED:        # what lies between its operands stays, too, for they stay a step apart
        mark_live(t, node.a, n)
        mark_live(t, node.argument.pair.b, (n - 1) * stride_at(t, i) + 1)
    else:
        for k in range(0 if FAULT(b"collect: listed operands live") else listed_operands(node)):
            t.seen[t.pool[node.a + k]] |= LIVE


cdef void move_operands(Node *node, const uint32_t *moved) noexcept:
    """Give the operands of a node that does not list them their new ids."""
    if node.op == LEAF or node.op > DOT and node.op != DOT_STRIDED:
        return
    node.a = moved[node.a]
    if node.op > LAST_UNARY and node.op != SUM:
        node.argument.pair.b = moved[node.argument.pair.b]


cdef size_t move_block(Tape *t, Node *node, uint32_t owner, const uint32_t *moved, size_t pool_top) noexcept:
    """Move the pool block of a node that lists its operands to the place `pool_top`, with their new ids. Return its end."""
    cdef uint32_t n = listed_operands(node)
    cdef size_t length = block_length(custom_words(n) if node.op == CUSTOM else n)
    cdef uint32_t k
    memmove(&t.pool[pool_top], &t.pool[node.a], length * sizeof(uint32_t))
    for k in range(0 if FAULT(b"collect: listed operands move") else n):
        t.pool[pool_top + k] = moved[t.pool[pool_top + k]]
    t.pool[pool_top + length - 2] = owner
    node.a = <uint32_t>pool_top
    return pool_top + length


cdef class Handle:
    """Handle()\n--\n\nWhat Python holds: keeps its nodes, and all that they were computed from, on the tape."""

    def __dealloc__(self):
        cdef bint dropped = detach(self)
        self.id = 0
        if dropped:
            release(tape)


cdef void each_node(PyObject *handle, Tape *t, Visit visit) noexcept:
    """Call `visit` with each node that `handle` stands for."""
    if (<Handle>handle).kind == VECTOR:
        behaviour_of_vectors.each(handle, t, visit)
    elif (<Handle>handle).kind == MATRIX:
        behaviour_of_matrices.each(handle, t, visit)
    else:
        visit(t, (<Handle>handle).id)


cdef void mark_node(Tape *t, uint32_t id) noexcept:
    t.seen[id] |= LIVE


cdef void move_handle(PyObject *handle, const uint32_t *moved) noexcept:
    """Let `handle` stand for the same nodes, which have new ids, moved[id]."""
    (<Handle>handle).id = moved[(<Handle>handle).id]
    if (<Handle>handle).kind == VECTOR:
        behaviour_of_vectors.move(handle, moved)
    elif (<Handle>handle).kind == MATRIX:
        behaviour_of_matrices.move(handle, moved)


cdef void drop_kept(Tape *t, uint32_t id) noexcept:
    """The node `id` goes, and with it the KEPT Value that is its only handle; `release` frees it."""
    cdef PyObject *kept = t.handle[id]
    t.handle[id] = NULL
    t.kept -= 1
    t.kept_young -= id >= t.floor
    (<Handle>kept).id = 0
    (<Handle>kept).next = t.dropped
    t.dropped = kept


cdef void release(Tape *t) noexcept:
    """Free the attributes of nodes that are gone. That may run any code, which may use the tape."""
    cdef PyObject *kept
    if t.releasing:                 # a Value that dies on the way calls this, too: no recursion
        return
    t.releasing = True
    while t.dropped != NULL or t.garbages > 0:
        if t.garbages > 0:
            t.garbages -= 1
            Py_DECREF(<object>t.garbage[t.garbages])
            continue
        kept = t.dropped
        t.dropped = (<Handle>kept).next
        (<Handle>kept).next = NULL
        (<Handle>kept).kind = VALUE
        Py_DECREF(<object>kept)
    t.releasing = False


cdef int release_later(void *_) noexcept:
    release(tape)
    return 0


cdef Tape the_tape                  # owner of the arrays, until the process ends: handles may live as long
tape = &the_tape


cdef int grow(Tape *t, size_t n) except -1:
    """Make room for `n` more nodes and their records."""
    cdef size_t records
    if n > t.capacity - t.top:
        grow_arrays(t, n)
    if n > t.record_capacity - t.record_top:
        records = max(t.record_top + n, min(2 * <size_t>t.record_capacity, <size_t>t.capacity)) + FIRST_CAPACITY
        if not resize_records(t, records):
            raise MemoryError(f"no memory for {records} records of nodes")
    set_limit(t, t.top)
    return 0


cdef inline void set_limit(Tape *t, uint32_t top) noexcept:
    t.limit = <uint32_t>min(<size_t>t.capacity, top + <size_t>(t.record_capacity - t.record_top))


cdef bint resize_records(Tape *t, size_t capacity) noexcept:
    """Give the records room for `capacity`, not below `record_top`. Without memory return False, with every one still there."""
    if FENCED:
        fence(t, t.fence, t.record_capacity)
    t.record_fence = t.record_capacity = <uint32_t>min(<size_t>t.record_capacity, capacity)
    if capacity > UINT32_MAX or not try_reallocate(<void **>&t.record, capacity, sizeof(Node)):
        return False
    t.record_fence = t.record_capacity = <uint32_t>capacity
    return True


cdef int grow_arrays(Tape *t, size_t n) except -1:
    """Make room for `n` more nodes: collect, then double the room unless two thirds of it are free.

    Garbage that is not released yet counts as free, but where less than a quarter is free without it, the room grows by half.
    So a node costs constant time on average, however many there are and however many of them stay.
    """
    cdef size_t capacity = t.capacity
    cdef bint ample
    collect(t)
    ample = 3 * (t.top - t.garbage_nodes + n) <= capacity
    if ample and (t.garbage_nodes == 0 or 4 * (t.top + n) <= 3 * capacity):
        return 0
    if t.top + n > UINT32_MAX:
        raise MemoryError(f"a tape holds at most {<size_t>UINT32_MAX - 1} nodes, {t.top - 1 + n} wanted")
    capacity = min(max(t.top + n, capacity + (capacity // 2 if ample else capacity)), <size_t>UINT32_MAX)
    if not resize(t, capacity) and t.top + n > t.capacity:
        raise MemoryError(f"no memory for a tape of {capacity} nodes")
    return 0


cdef bint resize_handles(Tape *t, size_t capacity) noexcept:
    """Give the handles room for `capacity` nodes, or return False. Most nodes have none, and new pages of the system are zero:
    those that are never written take no memory.
    """
    cdef PyObject **handle = <PyObject **>calloc(capacity, sizeof(void *))
    cdef uint32_t i
    if handle == NULL:
        return False
    for i in range(t.top):
        if t.handle[i] != NULL:
            handle[i] = t.handle[i]
    free(t.handle)
    t.handle = handle
    return True


cdef bint resize(Tape *t, size_t capacity) noexcept:
    """Give every array room for `capacity` nodes, not below `top`. Without memory return False, with every node still there."""
    if FENCED:
        fence(t, t.capacity, t.record_fence)
    t.fence = t.capacity = min(t.capacity, <uint32_t>capacity)
    set_limit(t, t.top)
    if not (try_reallocate(<void **>&t.data, capacity, sizeof(double))
            and try_reallocate(<void **>&t.grad, capacity, sizeof(double))
            and try_reallocate(<void **>&t.seen, capacity, sizeof(uint8_t))
            and try_reallocate(<void **>&t.record_of, capacity, sizeof(uint32_t))
            and resize_handles(t, capacity)):
        return False
    t.fence = t.capacity = <uint32_t>capacity
    return True


cdef bint rewind(Tape *t) noexcept:
    """Drop every node above the highest live handle. Return whether nodes with attributes were among them: `release` frees those.

    Children are below their parents, so no handle can reach them. A training step written as a function, a temporary
    of an expression and an op that failed half-way all end here, and the next op reuses the same, cache-warm memory.
    Cost: one look per dropped node, none at those above the last rewind's end if no handle is there.
    """
    cdef uint32_t top = t.top if t.young > 0 or t.kept_young > 0 else t.floor
    cdef PyObject **handle = t.handle
    cdef bint rewritten = False
    while True:
        while top > 1 and handle[top - 1] == NULL:
            top -= 1
            while top % 8 == 0 and top > 8 and eight_without_handle(t, top - 8):
                top -= 8
        if t.kept == 0 or top == 1 or not only_kept(handle[top - 1]):
            break
        drop_kept(t, top - 1)
    t.peak = max(t.peak, t.top)
    rewind_records(t, top)
    if t.shifts > 0:
        forget_shifts(t, top)
    t.top = t.floor = top
    t.young = t.kept_young = 0
    t.pool_top = 0 if FAULT(b"rewind: pool blocks of what is left stay") else pool_end(t, top)
    t.least_top = min(t.least_top, top)
    # The nodes that survive are older than every write made above the new top.
    while not FAULT(b"rewind: writes go with the nodes") and t.writes > 0 and t.write_top[t.writes - 1] > top:
        t.writes -= 1
        rewritten = True
    if rewritten and not FAULT(b"rewind: the last write stays") and (t.writes == 0 or t.write_top[t.writes - 1] < top):
        t.write_top[t.writes] = top
        t.writes += 1
    if rewritten:
        forget_tops(t)
    t.rewinds += 1
    if t.rewinds == 256:
        shrink(t)
    return t.dropped != NULL


cdef inline void rewind_records(Tape *t, uint32_t top) noexcept:
    """Drop the records of the nodes from `top` on, before these go."""
    cdef uint32_t r
    if top == t.top:
        return
    r = t.record_of[top]
    if r + (t.top - top) == t.record_top and r != t.record_of[top - 1]:     # one for each node: the limit stays
        t.record_top = r
        return
    t.record_top = record_end(t, top)
    set_limit(t, top)


cdef uint32_t record_end(Tape *t, uint32_t top) noexcept nogil:
    """Cut the run that reaches beyond `top`, if one does, and return where the records of the nodes below end."""
    cdef uint32_t last = t.record_of[top - 1]
    cdef Steps *steps
    if not t.record[last].op & RUN:
        return last + 1
    steps = <Steps *>&t.record[last + 1]
    steps.count = top - steps.first
    return last + 2


cdef int note_shift(Tape *t, uint32_t first, uint32_t count) except -1:
    """Note that these nodes, put last, subtract the maximum of their operands (`Shift`)."""
    cdef size_t capacity = max(2 * t.shifts_capacity, <size_t>64)
    if t.shifts == t.shifts_capacity:
        reallocate(<void **>&t.shift, capacity, sizeof(Shift))
        t.shifts_capacity = capacity
    t.shift[t.shifts] = Shift(first, count, count)
    t.shifts += 1
    return 0


cdef void move_shifts(Tape *t, const uint32_t *moved) noexcept:
    cdef size_t k
    cdef size_t kept = 0
    cdef Shift shift
    for k in range(t.shifts):
        shift = t.shift[k]
        shift.count = moved[shift.first + shift.count] - moved[shift.first]
        shift.first = moved[shift.first]
        if shift.count > 0:
            t.shift[kept] = shift
            kept += 1
    t.shifts = kept


cdef inline void forget_shifts(Tape *t, uint32_t top) noexcept:
    """Forget the shifts from `top` on."""
    while t.shifts > 0 and t.shift[t.shifts - 1].first >= top:
        t.shifts -= 1
    if t.shifts > 0:                # a rewind may cut the last one, as a collection does
        t.shift[t.shifts - 1].count = min(t.shift[t.shifts - 1].count, top - t.shift[t.shifts - 1].first)


cdef void make_leaves(Tape *t, uint32_t start) noexcept:
    """Let the nodes from `start` on, which were put last, refer to nothing. There is room for a record of each."""
    cdef uint32_t i
    t.record_top = record_end(t, start)
    for i in range(start, t.top):
        t.record_of[i] = t.record_top
        t.record[t.record_top].op = LEAF
        t.record[t.record_top].a = 0
        t.record[t.record_top].argument.stamp = 0
        t.record_top += 1
        t.seen[i] = SEEN


cdef size_t pool_end(Tape *t, uint32_t top) noexcept:
    """Return where the pool blocks of the nodes below `top` end."""
    cdef size_t end = t.pool_top
    while end > 0 and t.pool[end - 2] >= top:
        end -= t.pool[end - 1]
    return end


cdef void shrink(Tape *t) noexcept:
    """Free what a graph long gone has left: arrays more than four times as large as the last rewinds needed."""
    if t.capacity > FIRST_CAPACITY and t.peak < t.capacity // 4:
        resize(t, max(2 * <size_t>t.peak, <size_t>FIRST_CAPACITY))
        if t.record_capacity > 2 * <size_t>t.peak + FIRST_CAPACITY:
            resize_records(t, 2 * <size_t>t.peak + FIRST_CAPACITY)
        set_limit(t, t.top)
    t.peak = t.top
    t.rewinds = 0


cdef void collect(Tape *t) noexcept:
    """Drop every node that no handle reaches, wherever it lies; the survivors above the lowest of them slide down.

    A script's parameters, most of what survives, lie below and stay. One sweep from the top marks what the handles reach, since
    children are below their parents; one from the bottom moves it. No recursion. Without memory for the map of ids, or while ids
    are in use (`fixed`), nothing happens. Attributes of nodes that go are released by the interpreter between two of its
    instructions, since an op may be in the middle of its work.
    Cost: a few nanoseconds per node, operands included.
    """
    cdef uint32_t *moved                # the new id of each node: how many live ones are below; owner: this call
    cdef Node *record                   # owner: the tape, if it is another array than before
    cdef uint32_t i, first, live
    cdef PyObject *handle
    cdef bint attributes = False
    cdef bint own_leaves = False        # as of `t`, of the leaves that are still there
    t.garbage_nodes = 0
    if t.fixed:
        return
    moved = <uint32_t *>malloc((t.top + <size_t>1) * sizeof(uint32_t))
    if moved == NULL:
        return
    t.seen[0] |= LIVE
    i = t.top
    while i > 1:
        if i > 8 and eight_without_mark(t, i - 8) and eight_without_handle(t, i - 8):
            i -= 8
            continue
        i -= 1
        handle = t.handle[i]
        while handle != NULL:
            if (<Handle>handle).kind != KEPT or FAULT(b"collect: what only the tape holds"):
                each_node(handle, t, mark_node)
            attributes |= (<Handle>handle).attributes != NULL
            handle = (<Handle>handle).next
        if t.seen[i] & LIVE:
            own_leaves |= op_at(t, i) == LEAF and not t.seen[i] & SEEN
            mark_operands(t, i)
        elif t.handle[i] != NULL:
            drop_kept(t, i)
    t.own_leaves &= own_leaves
    first = 0
    while first < t.top and t.seen[first] & LIVE:
        t.seen[first] ^= LIVE
        moved[first] = first
        first += 1
    live = first
    for i in range(first, t.top):
        moved[i] = live
        live += t.seen[i] // LIVE
    moved[t.top] = live
    if first < t.top:
        record = room_for_records(t, moved, first)
        if record == NULL:
            for i in range(first, t.top):
                t.seen[i] &= ~<uint8_t>LIVE
        else:
            t.least_top = min(t.least_top, first)
            move_records(t, moved, first, record)
            move_shifts(t, moved)
            slide(t, moved, first)
    free(moved)
    if t.top == 1:                      # nothing is left that could have one
        t.own_backward = False
    if attributes and not FAULT(b"collect: cycles go"):
        find_cycles(t)
    if t.dropped != NULL or t.garbages > 0:
        Py_AddPendingCall(release_later, NULL)      # where there is no room for it, the next collection does it


cdef inline bint stays(const uint32_t *moved, uint32_t id) noexcept:
    return moved[id + 1] != moved[id]


cdef uint32_t next_piece(const Node *record, uint32_t k, const uint32_t *moved, Node *node, Steps *piece) noexcept:
    """Write the next nodes of a run, from number `k` on, that stay and will be a run, as they will be: of some that stay the
    operands may not be steps apart any more. Return the number of the node after them; `piece.count` is 0 if there are none.
    """
    cdef const Steps *steps = steps_of(record)
    cdef uint32_t op = record.op ^ RUN
    cdef Node next
    piece.count = 0
    while k < steps.count:
        if stays(moved, steps.first + k):
            next = record[0]
            next.op = op
            if op != DOT_STRIDED:
                next.a += k * steps.step_a
            if op > LAST_UNARY:
                next.argument.pair.b += k * steps.step_b
            move_operands(&next, moved)
            if piece.count == 0:
                node[0] = next
                piece.first = moved[steps.first + k]
                piece.step_a = piece.step_b = 0
            elif piece.count == 1:
                if op == DOT_STRIDED and next.argument.pair.b != node.argument.pair.b + 1:
                    break
                piece.step_a = next.a - node.a
                piece.step_b = next.argument.pair.b - node.argument.pair.b if op > LAST_UNARY else 0
            elif next.a - node.a != piece.count * piece.step_a or (
                    op > LAST_UNARY and next.argument.pair.b - node.argument.pair.b != piece.count * piece.step_b):
                break
            piece.count += 1
        k += 1
    if op == DOT_STRIDED:
        piece.step_a = steps.step_a
    return k


cdef inline uint32_t records_of(const Node *node, const Steps *piece) noexcept:
    """Number of records that some nodes of a run take."""
    return 1 if piece.count == 1 and node.op != DOT_STRIDED else 2


cdef Node *room_for_records(Tape *t, const uint32_t *moved, uint32_t first) noexcept:
    """Return where the records of the nodes that stay fit: mostly the array that they are in, since they become fewer. But a run
    of which not all stay may be several. NULL if there is no memory for another array.
    """
    cdef uint32_t r = t.record_of[first]
    cdef uint32_t to = r
    cdef uint32_t id = steps_of(&t.record[r]).first if t.record[r].op & RUN else first
    cdef uint32_t k
    cdef bint ahead = False
    cdef Node node
    cdef Node *record
    cdef Steps piece
    while r < t.record_top:
        if not t.record[r].op & RUN:
            to += stays(moved, id)
            id += 1
            r += 1
            continue
        k = next_piece(&t.record[r], 0, moved, &node, &piece)
        while piece.count > 0:
            to += records_of(&node, &piece)
            k = next_piece(&t.record[r], k, moved, &node, &piece)
        id += steps_of(&t.record[r]).count
        r += 2
        ahead |= to > r
    if not ahead:
        return t.record
    record = <Node *>malloc(max(to, t.record_capacity) * sizeof(Node))
    if record != NULL:
        memcpy(record, t.record, t.record_of[first] * sizeof(Node))
    return record


cdef void move_records(Tape *t, const uint32_t *moved, uint32_t first, Node *record) noexcept:
    """Move the records of the nodes that stay to their new places in `record`, with their operands and pool blocks.

    Those of nodes below `first`, the lowest dead one, are where they should be.
    """
    cdef uint32_t r = t.record_of[first]
    cdef uint32_t to = r
    cdef uint32_t id = steps_of(&t.record[r]).first if t.record[r].op & RUN else first
    cdef uint32_t i, k
    cdef size_t pool_top = pool_end(t, first)
    cdef Node node
    cdef Node run[2]
    cdef Steps piece
    while r < t.record_top:
        run[0] = t.record[r]
        if not run[0].op & RUN:
            if stays(moved, id):
                if run[0].op > DOT:
                    pool_top = move_block(t, &run[0], moved[id], moved, pool_top)
                else:
                    move_operands(&run[0], moved)
                record[to] = run[0]
                t.record_of[moved[id]] = to
                to += 1
            id += 1
            r += 1
            continue
        run[1] = t.record[r + 1]
        k = next_piece(run, 0, moved, &node, &piece)
        while piece.count > 0:
            for i in range(piece.first, piece.first + piece.count):
                t.record_of[i] = to
            record[to] = node
            if records_of(&node, &piece) == 2:
                record[to].op |= RUN
                (<Steps *>&record[to + 1])[0] = piece
            to += records_of(&node, &piece)
            k = next_piece(run, k, moved, &node, &piece)
        id += steps_of(run).count
        r += 2
    if record != t.record:
        t.record_capacity = max(to, t.record_capacity)
        if FENCED:
            fence(t, t.fence, t.record_fence)
        free(t.record)
        t.record = record
        t.record_fence = t.record_capacity
    t.record_top = to
    t.pool_top = pool_top


cdef void slide(Tape *t, const uint32_t *moved, uint32_t first) noexcept:
    """Move every node marked LIVE to its new id, with its handles; unmark it. Those below `first` are where they should be."""
    cdef size_t writes = 0
    cdef size_t k
    cdef uint32_t i, to
    cdef PyObject *handle
    i = first
    while i < t.top:
        if not t.seen[i] & LIVE:
            i += 8 if i + 8 <= t.top and eight_without_mark(t, i) else 1
            continue
        t.seen[i] ^= LIVE
        to = moved[i]
        handle = t.handle[i]
        if handle != NULL:              # no page is touched where none are
            t.handle[i] = NULL
            t.handle[to] = handle
        while handle != NULL:
            move_handle(handle, moved)
            handle = (<Handle>handle).next
        t.data[to] = t.data[i]
        t.grad[to] = t.grad[i]
        t.seen[to] = t.seen[i]
        i += 1
    for k in range(t.writes):
        i = t.write_top[k] if FAULT(b"collect: writes move") else moved[t.write_top[k]]
        if writes == 0 or t.write_top[writes - 1] < i:
            t.write_clock[writes] = t.write_clock[k]
            t.write_top[writes] = i
            writes += 1
    t.writes = writes
    forget_tops(t)
    t.floor = moved[t.floor]
    if not FAULT(b"collect: the last run moves"):
        t.run_start = moved[min(t.run_start, t.top)]
        t.run_end = moved[min(t.run_end, t.top)]
    t.top = moved[t.top]
    set_limit(t, t.top)


cdef int grow_pool(Tape *t, size_t words) except -1:
    """Make room for `words` more words of listed operands, as `grow` does for nodes."""
    cdef size_t capacity
    collect(t)
    if 2 * (t.pool_top + words) <= t.pool_capacity:
        return 0
    if t.pool_top + words > UINT32_MAX:
        raise MemoryError(f"a tape holds at most {UINT32_MAX} listed operands, {t.pool_top + words} wanted")
    capacity = max(t.pool_top + words, 2 * t.pool_capacity)
    if try_reallocate(<void **>&t.pool, capacity, sizeof(uint32_t)):
        t.pool_capacity = capacity
    elif t.pool_top + words > t.pool_capacity:
        raise MemoryError(f"no memory for {capacity} listed operands")
    return 0


cdef uint64_t new_stamp(Tape *t) except 0:
    """Return the stamp for leaves written now; a later call returns another if nodes were made in between."""
    t.changes += 1
    if t.writes == 0 or t.write_top[t.writes - 1] != t.top:
        if t.writes == t.writes_capacity:
            reallocate(<void **>&t.write_clock, 2 * t.writes + 8, sizeof(uint64_t))
            reallocate(<void **>&t.write_top, 2 * t.writes + 8, sizeof(uint32_t))
            t.writes_capacity = 2 * t.writes + 8
        t.clock += 1
        t.write_clock[t.writes] = t.clock
        t.write_top[t.writes] = t.top
        t.writes += 1
    return t.write_clock[t.writes - 1]


cdef inline uint32_t top_at(Tape *t, uint64_t clock) noexcept nogil:
    """Return the lowest id of a node that was made after what was written at `clock`, 0 if all were."""
    cdef uint64_t place = clock % 16
    if t.known_clock[place] != clock or clock == 0:
        t.known_top[place] = find_top(t, clock)
        t.known_clock[place] = clock
    return t.known_top[place]


cdef uint32_t find_top(Tape *t, uint64_t clock) noexcept nogil:
    cdef size_t low = 0
    cdef size_t high = t.writes
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if t.write_clock[middle] <= clock:
            low = middle + 1
        else:
            high = middle
    return t.write_top[low - 1] if low > 0 else 0


cdef inline void forget_tops(Tape *t) noexcept nogil:
    """The log of writes has changed, and not only become longer."""
    memset(t.known_clock, 0, sizeof(t.known_clock))


cdef int write_leaf(Tape *t, uint32_t leaf, double data) except -1:
    """Set the data of a leaf, and remember what it was: set back to that, no node that used it is out of date."""
    cdef uint64_t clock = new_stamp(t)
    cdef Node *record = &t.record[t.record_of[leaf]]
    cdef uint32_t last = record.a
    cdef uint32_t free_one              # a Past of this leaf that is not needed any more, `last` if there is none
    if last != 0 and t.past[last].clock == clock:               # no node was made since it was set last
        t.data[leaf] = data
        return 0
    free_one = last
    last = needed_past(t, last)
    if last == 0 or (top_at(t, t.past[free_one].clock) != t.top and not FAULT(b"past: each number that was used")):
        if free_one == last:
            if t.past_top >= t.past_capacity:
                make_past(t)
                last = record.a
            free_one = <uint32_t>t.past_top
            t.past_top += 1
        t.past[free_one] = Past(clock, t.data[leaf], last)
        last = free_one
    record.a = last
    t.data[leaf] = data
    return 0


cdef uint32_t needed_past(Tape *t, uint32_t past) noexcept nogil:
    """Return this Past, or the first one before it that a node may need: that was left by nodes made between it and the next."""
    cdef uint32_t end = top_at(t, t.past[past].clock) if past != 0 else 0
    while past != 0 and t.past[past].older != 0 and top_at(t, t.past[t.past[past].older].clock) == end:
        past = t.past[past].older
    return past


cdef int make_past(Tape *t) except -1:
    """Make room for one more Past. Those that no node needs are dropped, as soon as there are enough to look for them."""
    cdef size_t capacity = max(2 * t.past_capacity, <size_t>1024)
    cdef Past *past = NULL                          # owner: the tape, in place of the old array
    cdef size_t end = 1
    cdef uint32_t r = 0
    cdef uint32_t old
    cdef uint32_t *link
    if capacity > UINT32_MAX:
        raise MemoryError("leaves of one tape were set to too many values that are still needed")
    reallocate(<void **>&past, capacity, sizeof(Past))
    if 8 * t.past_top < t.top:
        if t.past != NULL:
            memcpy(past, t.past, t.past_top * sizeof(Past))
            end = t.past_top
    else:
        while r < t.record_top:
            if t.record[r].op == LEAF and t.record[r].a != 0 and not FAULT(b"past: what is needed stays"):
                old = needed_past(t, t.record[r].a)
                link = &t.record[r].a
                while old != 0:
                    past[end] = t.past[old]
                    link[0] = <uint32_t>end
                    link = &past[end].older
                    old = needed_past(t, link[0])
                    end += 1
            r += 2 if t.record[r].op & RUN else 1
        if 8 * end < capacity and try_reallocate(<void **>&past, max(4 * end, <size_t>1024), sizeof(Past)):
            capacity = max(4 * end, <size_t>1024)
    free(t.past)
    t.past = past
    t.past_top = end
    t.past_capacity = capacity
    return 0


cdef void stamp_run(Tape *t, uint32_t start, uint32_t n, uint64_t stamp) noexcept nogil:
    """Note that the leaves [start, start + n) are written now, with `stamp`. Quick where it is the same run as last time."""
    cdef uint32_t i
    cdef Node *record
    if t.run_start != start or t.run_end != start + n:
        for i in range(t.run_start, min(t.run_end, t.top)):     # where nodes may have come after a rewind
            if op_at(t, i) == LEAF:
                if not FAULT(b"stamps: of the run before"):
                    record = &t.record[t.record_of[i]]
                    record.argument.stamp = max(record.argument.stamp, t.run_stamp)
        t.run_start = start
        t.run_end = start + n
    t.run_stamp = stamp


cdef bint has_changed(Tape *t, uint32_t leaf, uint32_t since) noexcept nogil:
    """Whether the data of `leaf` are others than when node `since` was made."""
    cdef const Node *record = record_at(t, leaf)
    cdef uint64_t clock = record.argument.stamp
    cdef uint32_t past = record.a
    cdef uint32_t then = 0
    if t.run_start <= leaf < t.run_end and not FAULT(b"stamps: of the last run"):
        clock = max(clock, t.run_stamp)
    if top_at(t, clock) > since:
        return True
    while past != 0 and top_at(t, t.past[past].clock) > since:
        then = past
        past = t.past[past].older
    if FAULT(b"past: what a leaf was set from"):
        return False
    return then != 0 and (memcmp(&t.past[then].data, &t.data[leaf], sizeof(double)) != 0 or FAULT(b"past: a leaf set back"))


cdef class TapeView:
    """The tape, to look at its size."""

    @property
    def nodes(self):
        """Number of nodes on the tape."""
        return tape.top - 1

    @property
    def room(self):
        """Number of nodes that there is room for."""
        return tape.capacity - 1

    @property
    def nbytes(self):
        """Bytes that the arrays of the tape take, used or not."""
        cdef size_t node = 2 * sizeof(double) + sizeof(uint8_t) + sizeof(uint32_t) + sizeof(void *)
        cdef size_t write = sizeof(uint64_t) + sizeof(uint32_t)
        return (tape.capacity * node + tape.record_capacity * sizeof(Node) + tape.pool_capacity * sizeof(uint32_t)
                + tape.writes_capacity * write + tape.past_capacity * sizeof(Past))

    def collect(self):
        """Drop every node that no handle reaches, unless a backward() or zero_grad() is under way.

        So goes what only attributes of such nodes refer to, cycles through them included.
        """
        collect(tape)
        # Where a finalizer collects, the release that called it goes on with the rest.
        while (tape.dropped != NULL or tape.garbages > 0) and not tape.releasing:
            release(tape)
            collect(tape)               # what was released may have been the last to hold others


def get_tape():
    """Return a view of the tape of this process."""
    return TapeView()


cdef int start() except -1:
    if not resize(tape, FIRST_CAPACITY):
        raise MemoryError("no memory for a tape")
    reserve(tape, 1)
    put_leaf(tape, float("nan"))    # id 0 means no node
    tape.floor = 1
    tape.past_top = 1               # 0 means none
    return 0


start()
