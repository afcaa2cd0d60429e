"""The tape: memory of every node, told in the verbs reserve, put, rewind and free."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

cdef enum:
    FIRST_CAPACITY = 1 << 12


cdef int resize(void **array, size_t n, size_t size) except -1:
    """Give `array` room for `n` items of `size` bytes. On MemoryError it stays as it was. Owner: the Tape, until its free."""
    cdef void *moved = realloc(array[0], n * size)
    if moved == NULL:
        raise MemoryError(f"the tape needs {n * size} more bytes than there are")
    array[0] = moved
    return 0


cdef class Handle:
    """What Python holds: keeps its nodes, and all that they were computed from, on the tape."""

    cdef void anchor(self, uint32_t id) noexcept:
        self.id = id
        self.next = tape.handle[id]
        tape.handle[id] = <PyObject *>self

    def __dealloc__(self):
        cdef PyObject **link
        if self.id == 0:
            return
        link = &tape.handle[self.id]
        while link[0] != <PyObject *>self:
            link = &(<Handle>link[0]).next
        link[0] = self.next
        if self.id == tape.top - 1 and tape.handle[self.id] == NULL:
            tape.rewind()


cdef class Tape:
    """Growable parallel arrays of nodes. One per process: `tape`."""

    def __cinit__(self):
        self.grow(FIRST_CAPACITY)
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
    def nbytes(self):
        """Bytes that the arrays of the tape take, used or not."""
        cdef size_t node = 2 * sizeof(double) + 2 * sizeof(uint8_t) + sizeof(uint32_t) + sizeof(Argument) + sizeof(void *)
        cdef size_t write = sizeof(uint64_t) + sizeof(uint32_t)
        return self.capacity * node + self.pool_capacity * sizeof(uint32_t) + self.writes_capacity * write

    cdef int grow(self, size_t n) except -1:
        """Make room for `n` more nodes, at least doubling, so that a node costs constant time however many there are."""
        cdef size_t capacity = max(<size_t>self.top + n, 2 * <size_t>self.capacity)
        if <size_t>self.top + n > UINT32_MAX:
            raise MemoryError(f"a tape holds at most {UINT32_MAX} nodes, {self.top + n} wanted")
        capacity = min(capacity, <size_t>UINT32_MAX)
        resize(<void **>&self.data, capacity, sizeof(double))
        resize(<void **>&self.grad, capacity, sizeof(double))
        resize(<void **>&self.op, capacity, sizeof(uint8_t))
        resize(<void **>&self.seen, capacity, sizeof(uint8_t))
        resize(<void **>&self.a, capacity, sizeof(uint32_t))
        resize(<void **>&self.argument, capacity, sizeof(Argument))
        resize(<void **>&self.handle, capacity, sizeof(void *))
        memset(&self.handle[self.capacity], 0, (capacity - self.capacity) * sizeof(void *))
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
        self.top = top
        while self.pool_top > 0 and self.pool[self.pool_top - 2] >= top:
            self.pool_top -= self.pool[self.pool_top - 1]
        # The nodes that survive are older than every write made above the new top.
        while self.writes > 0 and self.write_top[self.writes - 1] > top:
            self.writes -= 1
            rewritten = True
        if rewritten and (self.writes == 0 or self.write_top[self.writes - 1] < top):
            self.write_top[self.writes] = top
            self.writes += 1

    cdef int grow_pool(self, size_t words) except -1:
        """Make room for `words` more words of listed operands."""
        cdef size_t capacity = max(self.pool_top + words, 2 * self.pool_capacity)
        if self.pool_top + words > UINT32_MAX:
            raise MemoryError(f"a tape holds at most {UINT32_MAX} listed operands, {self.pool_top + words} wanted")
        resize(<void **>&self.pool, capacity, sizeof(uint32_t))
        self.pool_capacity = capacity
        return 0

    cdef uint64_t stamp(self) except 0:
        """Return the stamp for leaves written now; a later call returns another if nodes were made in between."""
        if self.writes == 0 or self.write_top[self.writes - 1] != self.top:
            if self.writes == self.writes_capacity:
                resize(<void **>&self.write_clock, 2 * self.writes + 8, sizeof(uint64_t))
                resize(<void **>&self.write_top, 2 * self.writes + 8, sizeof(uint32_t))
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
