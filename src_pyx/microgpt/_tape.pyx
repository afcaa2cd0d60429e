"""The tape: memory of every node, told in the verbs reserve, put, rewind, collect and free."""

cimport cython
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove

cdef enum:
    FIRST_CAPACITY = 1 << 12


cdef int reallocate(void **array, size_t n, size_t size) except -1:
    """Give `array` room for `n` items of `size` bytes. On MemoryError it stays as it was. The caller owns and frees it."""
    cdef void *moved = realloc(array[0], n * size)
    if moved == NULL:
        raise MemoryError(f"no memory for an array of {n * size} bytes on the tape")
    array[0] = moved
    return 0


cdef inline uint32_t listed(Tape t, uint32_t i) noexcept:
    """Number of operands of node `i` that stand in its pool block."""
    cdef uint8_t op = t.op[i]
    if op == SUM_LISTED or op == CUSTOM:
        return t.argument[i].pair.n
    return 2 * t.argument[i].pair.n if op == DOT_LISTED else 0


cdef inline void mark_run(Tape t, uint32_t start, uint32_t n) noexcept:
    cdef uint32_t i
    for i in range(start, start + n):
        t.seen[i] |= LIVE


cdef void mark_operands(Tape t, uint32_t i) noexcept:
    cdef uint8_t op = t.op[i]
    cdef uint32_t a = t.a[i]
    cdef uint32_t k
    if op == LEAF:
        return
    if op <= LAST_BINARY:
        t.seen[a] |= LIVE
        if op > LAST_UNARY:
            t.seen[t.argument[i].pair.b] |= LIVE
    elif op == SUM or op == DOT:
        mark_run(t, a, t.argument[i].pair.n)
        if op == DOT:
            mark_run(t, t.argument[i].pair.b, t.argument[i].pair.n)
    else:
        for k in range(listed(t, i)):
            t.seen[t.pool[a + k]] |= LIVE


cdef size_t move_operands(Tape t, uint32_t i, const uint32_t *moved, size_t pool_top) noexcept:
    """Give the operands of node `i` their new ids, and its pool block, if it has one, the place `pool_top`; return its end."""
    cdef uint8_t op = t.op[i]
    cdef uint32_t a = t.a[i]
    cdef uint32_t n, k
    cdef size_t length
    if op == LEAF:
        return pool_top
    if op <= DOT:
        t.a[i] = moved[a]
        if op > LAST_UNARY and op != SUM:
            t.argument[i].pair.b = moved[t.argument[i].pair.b]
        return pool_top
    n = listed(t, i)
    length = block_length(custom_words(n) if op == CUSTOM else n)
    memmove(&t.pool[pool_top], &t.pool[a], length * sizeof(uint32_t))
    for k in range(n):
        t.pool[pool_top + k] = moved[t.pool[pool_top + k]]
    t.pool[pool_top + length - 2] = i
    t.a[i] = <uint32_t>pool_top
    return pool_top + length


@cython.freelist(1024)
cdef class Handle:
    """What Python holds: keeps its nodes, and all that they were computed from, on the tape."""

    cdef void mark(self, Tape t) noexcept:
        t.seen[self.id] |= LIVE

    cdef void move(self, const uint32_t *moved) noexcept:
        self.id = moved[self.id]

    def __dealloc__(self):
        if self.id == 0:
            tape.rewind()       # the op that was to fill it failed: its nodes go with it
            return
        if self.next != NULL:
            (<Handle>self.next).previous = self.previous
        if self.previous != NULL:
            (<Handle>self.previous).next = self.next
            return
        tape.handle[self.id] = self.next
        if self.next == NULL and self.id == tape.top - 1:
            tape.rewind()


cdef class Tape:
    """Growable parallel arrays of nodes. One per process: `tape`."""

    def __cinit__(self):
        self.resize(FIRST_CAPACITY)
        put_leaf(self, float("nan"))    # id 0 means no node

    def __dealloc__(self):
        free(self.data)
        free(self.grad)
        free(self.op)
        free(self.seen)
        free(self.a)
        free(self.argument)
        free(self.handle)
        free(self.pool)
        free(self.write_clock)
        free(self.write_top)

    @property
    def nodes(self):
        """Number of nodes on the tape."""
        return self.top - 1

    @property
    def room(self):
        """Number of nodes that there is room for."""
        return self.capacity - 1

    @property
    def nbytes(self):
        """Bytes that the arrays of the tape take, used or not."""
        cdef size_t node = 2 * sizeof(double) + 2 * sizeof(uint8_t) + sizeof(uint32_t) + sizeof(Argument) + sizeof(void *)
        cdef size_t write = sizeof(uint64_t) + sizeof(uint32_t)
        return self.capacity * node + self.pool_capacity * sizeof(uint32_t) + self.writes_capacity * write

    cdef int grow(self, size_t n) except -1:
        """Make room for `n` more nodes: collect, then at least double unless that left half of the room.

        So a node costs constant time on average, however many there are and however many of them stay.
        """
        self.collect()
        if 2 * (self.top + n) <= self.capacity:
            return 0
        if self.top + n > UINT32_MAX:
            raise MemoryError(f"a tape holds at most {UINT32_MAX} nodes, {self.top + n} wanted")
        return self.resize(min(max(self.top + n, 2 * <size_t>self.capacity), <size_t>UINT32_MAX))

    cdef int resize(self, size_t capacity) except -1:
        """Give every array room for `capacity` nodes, not below `top`. On MemoryError all that was there is still there."""
        reallocate(<void **>&self.data, capacity, sizeof(double))
        reallocate(<void **>&self.grad, capacity, sizeof(double))
        reallocate(<void **>&self.op, capacity, sizeof(uint8_t))
        reallocate(<void **>&self.seen, capacity, sizeof(uint8_t))
        reallocate(<void **>&self.a, capacity, sizeof(uint32_t))
        reallocate(<void **>&self.argument, capacity, sizeof(Argument))
        reallocate(<void **>&self.handle, capacity, sizeof(void *))
        self.capacity = <uint32_t>capacity
        return 0

    cdef void rewind(self) noexcept:
        """Drop every node above the highest live handle.

        Children are below their parents, so no handle can reach them. A training step written as a function, a temporary
        of an expression and an op that failed half-way all end here, and the next op reuses the same, cache-warm memory.
        Cost: one look per dropped node.
        """
        cdef uint32_t top = self.top
        cdef PyObject **handle = self.handle
        cdef bint rewritten = False
        while top > 8 and not (<size_t>handle[top - 1] | <size_t>handle[top - 2] | <size_t>handle[top - 3]
                               | <size_t>handle[top - 4] | <size_t>handle[top - 5] | <size_t>handle[top - 6]
                               | <size_t>handle[top - 7] | <size_t>handle[top - 8]):
            top -= 8
        while top > 1 and handle[top - 1] == NULL:
            top -= 1
        self.peak = max(self.peak, self.top)
        self.top = top
        self.pool_top = self.pool_end(top)
        # The nodes that survive are older than every write made above the new top.
        while self.writes > 0 and self.write_top[self.writes - 1] > top:
            self.writes -= 1
            rewritten = True
        if rewritten and (self.writes == 0 or self.write_top[self.writes - 1] < top):
            self.write_top[self.writes] = top
            self.writes += 1
        self.rewinds += 1
        if self.rewinds == 256:
            self.shrink()

    cdef size_t pool_end(self, uint32_t top) noexcept:
        """Return where the pool blocks of the nodes below `top` end."""
        cdef size_t end = self.pool_top
        while end > 0 and self.pool[end - 2] >= top:
            end -= self.pool[end - 1]
        return end

    cdef void shrink(self) noexcept:
        """Free what a graph long gone has left: arrays more than four times as large as the last rewinds needed."""
        if self.capacity > FIRST_CAPACITY and self.peak < self.capacity // 4:
            try:
                self.resize(max(2 * <size_t>self.peak, <size_t>FIRST_CAPACITY))
            except MemoryError:
                pass                        # what is there can stay
        self.peak = self.top
        self.rewinds = 0

    cpdef void collect(self) noexcept:
        """Drop every node that no handle reaches, wherever it lies; the survivors slide down.

        One sweep from the top marks what the handles reach, since children are below their parents; one from the bottom moves
        it. No recursion. Cost: a few nanoseconds per node, operands included. Without memory for the map of ids, or while ids
        are in use (`fixed`), nothing happens.
        """
        cdef uint32_t *moved                # the new id of each node: how many live ones are below; owner: this call
        cdef uint32_t i, first, live
        cdef PyObject *handle
        if self.fixed:
            return
        moved = <uint32_t *>malloc((self.top + <size_t>1) * sizeof(uint32_t))
        if moved == NULL:
            return
        self.seen[0] |= LIVE
        for i in range(self.top - 1, 0, -1):
            handle = self.handle[i]
            while handle != NULL:
                (<Handle>handle).mark(self)
                handle = (<Handle>handle).next
            if self.seen[i] & LIVE:
                mark_operands(self, i)
        first = 0
        while first < self.top and self.seen[first] & LIVE:
            self.seen[first] ^= LIVE
            moved[first] = first
            first += 1
        live = first
        for i in range(first, self.top):
            moved[i] = live
            live += self.seen[i] >> 2
        moved[self.top] = live
        if first < self.top:
            self.slide(moved, first)
        free(moved)

    cdef void slide(self, const uint32_t *moved, uint32_t first) noexcept:
        """Move every node marked LIVE to its new id, with its operands, pool block and handles; unmark it.

        Those below `first`, the lowest dead node, are where they should be.
        """
        cdef size_t pool_top = self.pool_end(first)
        cdef size_t writes = 0
        cdef size_t k
        cdef uint32_t i, to
        cdef PyObject *handle
        for i in range(first, self.top):
            if not self.seen[i] & LIVE:
                continue
            self.seen[i] ^= LIVE
            to = moved[i]
            handle = self.handle[i]
            self.handle[to] = handle
            while handle != NULL:
                (<Handle>handle).move(moved)
                handle = (<Handle>handle).next
            self.data[to] = self.data[i]
            self.grad[to] = self.grad[i]
            self.op[to] = self.op[i]
            self.seen[to] = self.seen[i]
            self.a[to] = self.a[i]
            self.argument[to] = self.argument[i]
            pool_top = move_operands(self, to, moved, pool_top)
        for k in range(self.writes):
            i = moved[self.write_top[k]]
            if writes == 0 or self.write_top[writes - 1] < i:
                self.write_clock[writes] = self.write_clock[k]
                self.write_top[writes] = i
                writes += 1
        self.writes = writes
        self.pool_top = pool_top
        self.top = moved[self.top]

    cdef int grow_pool(self, size_t words) except -1:
        """Make room for `words` more words of listed operands, as `grow` does for nodes."""
        self.collect()
        if 2 * (self.pool_top + words) <= self.pool_capacity:
            return 0
        if self.pool_top + words > UINT32_MAX:
            raise MemoryError(f"a tape holds at most {UINT32_MAX} listed operands, {self.pool_top + words} wanted")
        words = max(self.pool_top + words, 2 * self.pool_capacity)
        reallocate(<void **>&self.pool, words, sizeof(uint32_t))
        self.pool_capacity = words
        return 0

    cdef uint64_t stamp(self) except 0:
        """Return the stamp for leaves written now; a later call returns another if nodes were made in between."""
        if self.writes == 0 or self.write_top[self.writes - 1] != self.top:
            if self.writes == self.writes_capacity:
                reallocate(<void **>&self.write_clock, 2 * self.writes + 8, sizeof(uint64_t))
                reallocate(<void **>&self.write_top, 2 * self.writes + 8, sizeof(uint32_t))
                self.writes_capacity = 2 * self.writes + 8
            self.clock += 1
            self.write_clock[self.writes] = self.clock
            self.write_top[self.writes] = self.top
            self.writes += 1
        return self.write_clock[self.writes - 1]

    cdef uint32_t written(self, uint64_t stamp) noexcept nogil:
        """Return the lowest id that is younger than the write `stamp`: a node below it used the data of before."""
        cdef size_t low = 0
        cdef size_t high = self.writes
        cdef size_t middle
        while low < high:
            middle = (low + high) // 2
            if self.write_clock[middle] <= stamp:
                low = middle + 1
            else:
                high = middle
        return self.write_top[low - 1] if low > 0 else 0


tape = Tape()


def get_tape():
    """Return the tape of this process, to look at its size."""
    return tape
