"""Run instructions on slots."""

from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_Occurred
from libc.math cimport NAN, fabs, frexp, isfinite, pow
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport abs, calloc, free, malloc
from libc.string cimport memset

from microgpt._ops cimport evaluate, partial_a, partial_b
from microgpt._program_listing cimport CODE_RECIPROCAL, CODE_SQUARE
from microgpt._program_record cimport LARGER, SHIFT, Graph
from microgpt._program_seconds cimport second
from microgpt._tape cimport CONSTANT_POW, LAST_UNARY, POW, POW_CONSTANT
from microgpt._vectors cimport chosen

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <malloc.h>
    #define new_aligned(bytes) _aligned_malloc((bytes), 64)
    #define free_aligned(p) _aligned_free(p)
    #else
    #include <stdlib.h>
    static inline void *new_aligned(size_t bytes)
    {
        void *p;
        return posix_memalign(&p, 64, bytes) == 0 ? p : NULL;
    }
    #define free_aligned(p) free(p)
    #endif
    """
    void *new_aligned(size_t bytes) noexcept nogil
    void free_aligned(void *p) noexcept nogil

cdef enum:
    SPARE = 16                      # workspaces kept
    BETWEEN_SIGNALS = 1 << 16       # instructions between two looks at pending signals: a millisecond for eight rows


cdef double value_of(uint8_t op, double x, double y) except? -1.0 nogil:
    """As `evaluate`, which asks Python for powers that may be special, of some that are not without the lock."""
    cdef double base = y if op == CONSTANT_POW else x
    cdef double exponent = x if op == CONSTANT_POW else y
    cdef int size
    if op != POW_CONSTANT and op != CONSTANT_POW and op != POW:
        return evaluate(op, x, y)
    if base > 0.0 and isfinite(base) and isfinite(exponent):
        if -3.0 <= exponent <= 3.0 and 1e-75 < base < 1e75:
            return chosen.power(base, exponent)
        frexp(base, &size)
        if (fabs(exponent) + 1.0) * (abs(size) + 1.0) < 900.0:      # value and partial are ordinary numbers
            return pow(base, exponent)
    return evaluate(op, x, y)


ctypedef double (*quiet_value)(uint8_t op, double x, double y) noexcept nogil


cdef double value_or_nan(uint32_t op, double x, double y, int *failed) noexcept nogil:
    """The value of an op; where it raises, `failed` becomes 1."""
    cdef double result = (<quiet_value>value_of)(<uint8_t>op, x, y)     # as Cython calls it, but for the look at the error
    if result == -1.0:
        with gil:
            if PyErr_Occurred() != NULL:
                PyErr_Clear()
                failed[0] = 1
                result = NAN
    return result


cdef double other(uint32_t op, double x, double y, double z, int *failed) noexcept nogil:
    """What program.h has no loop for."""
    cdef uint32_t kind = op // 64
    if op == CODE_RECIPROCAL:
        return value_or_nan(POW_CONSTANT, x, -1.0, failed)
    if op == CODE_SQUARE:
        return 0.0 if x == 0.0 else value_or_nan(POW_CONSTANT, x, 2.0, failed)
    op %= 64
    if kind == 0:
        return value_or_nan(op, x, y, failed)
    if kind == 1:
        return partial_a(<uint8_t>op, x, y, z)
    if kind == 2:
        return partial_b(<uint8_t>op, x, y, z)
    return second(kind - 3, op, x, y, z)


cdef class Code:
    def __cinit__(self):
        self.spare = <void **>calloc(SPARE, sizeof(void *))
        if self.spare == NULL:
            raise MemoryError("no room for the workspaces of a program")

    def __dealloc__(self):
        while self.spares > 0:
            self.spares -= 1
            free_aligned(self.spare[self.spares])
        free(self.spare)
        free(self.constant)
        free(self.segments)
        free(self.places)
        free(self.output)

    cdef double *take_workspace(self) except NULL:
        """Return slots that have the constants in them, for one thread."""
        cdef double *slot
        cdef uint32_t i, j
        if self.spares > 0:
            self.spares -= 1
            return <double *>self.spare[self.spares]
        slot = <double *>new_aligned(max(self.slots, <uint32_t>1) * <size_t>self.width * sizeof(double))
        if slot == NULL:
            raise MemoryError(f"no room for {self.slots} numbers of a program")
        for i in range(self.constants):
            for j in range(self.width):
                slot[(self.variables + self.parameters + i) * <size_t>self.width + j] = self.constant[i]
        return slot

    cdef void give_workspace(self, double *workspace) noexcept:
        if self.spares < SPARE:
            self.spare[self.spares] = <void *>workspace
            self.spares += 1
        else:
            free_aligned(workspace)

    @property
    def instructions(self):
        """Number of instructions."""
        return self.n

    @property
    def nbytes(self):
        """Bytes of the code and of one workspace."""
        return (self.words * sizeof(uint32_t) + self.count * sizeof(segment)
                + (self.constants + self.slots * <size_t>self.width) * sizeof(double))

cdef void *allocate(size_t n, size_t size) except NULL:
    cdef void *made = malloc((n + 1) * size)
    if made == NULL:
        raise MemoryError(f"no room for a program of {n} instructions")
    return made


cdef void load(Code code, double *slot, const double *rows, size_t count) noexcept nogil:
    """Write rows of inputs into the slots; the last one again for those that are not there."""
    cdef size_t i, j
    cdef size_t n = code.variables
    for i in range(n):
        for j in range(code.width):
            slot[i * code.width + j] = rows[min(j, count - 1) * n + i]


cdef void store(Code code, const double *slot, double *heads, size_t n, double *rest, size_t count,
                const int *failed) noexcept nogil:
    """Copy the outputs of `count` rows: the first `n` to `heads`. Those of a row that failed are nan."""
    cdef size_t i, j
    cdef double x
    for j in range(count):
        for i in range(code.outputs):
            x = NAN if failed[j] else slot[code.output[i] * <size_t>code.width + j]
            if i < n:
                heads[j * n + i] = x
            else:
                rest[j * (code.outputs - n) + i - n] = x


cdef int execute(Code code, const runner *run, double *slot, int *failed, const uint8_t *stop) except -1 nogil:
    """Run all segments, with looks at pending signals and at `stop`. Return whether it was stopped."""
    cdef const uint32_t *p = code.places
    cdef size_t k = 0
    cdef size_t until, work
    while k < code.count:
        work = 0
        until = k
        while until < code.count and work < BETWEEN_SIGNALS:
            work += code.segments[until].n
            until += 1
        if code.width == 1:
            p = run.one(&code.segments[k], until - k, p, slot, failed, other)
        elif code.width == 4:
            p = run.four(&code.segments[k], until - k, p, slot, failed, other)
        else:
            p = run.eight(&code.segments[k], until - k, p, slot, failed, other)
        k = until
        if k < code.count:
            if stop[0]:
                return 1
            with gil:
                PyErr_CheckSignals()
    return 0


def run_rows(Code code, const double[::1] parameters, const double[::1] rows, double[::1] heads, size_t n, double[::1] rest,
             size_t first, size_t last, bint go_on, const uint8_t[::1] stop):
    """Run rows [first, last) of the inputs. Return the first of them that has an op without a value, or -1.

    Its outputs are nan; those that follow are run only if one is to `go_on`. `heads`: for the first `n` outputs of each row,
    `rest`: for the others. `stop`: one byte by which another thread says to leave off.
    """
    cdef const runner *run = runner_named(chosen.name)
    cdef const double *from_rows = &rows[0] if rows.shape[0] > 0 else NULL
    cdef double *to_heads = &heads[0] if heads.shape[0] > 0 else NULL
    cdef double *to_rest = &rest[0] if rest.shape[0] > 0 else NULL
    cdef const uint8_t *stops = &stop[0] if stop.shape[0] > 0 else NULL
    cdef double *slot
    cdef size_t row = first
    cdef size_t work = 0
    cdef size_t count, i, j
    cdef size_t others = code.outputs - n
    cdef Py_ssize_t failed_row = -1
    cdef int failed[8]
    if <size_t>parameters.shape[0] < code.parameters or <size_t>rows.shape[0] < last * code.variables or stops == NULL or (
            <size_t>heads.shape[0] < last * n) or n > code.outputs or <size_t>rest.shape[0] < last * others:
        raise ValueError("the rows to run are not all there")
    slot = code.take_workspace()
    try:
        for i in range(code.parameters):
            for j in range(code.width):
                slot[(code.variables + i) * code.width + j] = parameters[i]
        with nogil:
            while row < last and not stops[0]:
                count = min(<size_t>code.width, last - row)
                load(code, slot, from_rows + row * code.variables, count)
                memset(failed, 0, sizeof(failed))
                if execute(code, run, slot, failed, stops):
                    break
                store(code, slot, to_heads + row * n, n, to_rest + row * others, count, failed)
                for j in range(count):
                    if failed[j] and failed_row < 0:
                        failed_row = <Py_ssize_t>(row + j)
                if failed_row >= 0 and not go_on:
                    break
                row += count
                work += code.n
                if work >= BETWEEN_SIGNALS:
                    work = 0
                    with gil:
                        PyErr_CheckSignals()
    finally:
        code.give_workspace(slot)
    return failed_row


def add_rows(const double[::1] rows, size_t n, double[::1] total):
    """Add rows of `n` numbers up, from the first to the last."""
    cdef const double *row = &rows[0] if rows.shape[0] > 0 else NULL
    cdef const double *end = row + rows.shape[0]
    cdef double *to = &total[0] if total.shape[0] > 0 else NULL
    cdef size_t i
    if n == 0 or <size_t>total.shape[0] < n or <size_t>rows.shape[0] % n:
        raise ValueError("the rows to add are not whole")
    with nogil:
        while row < end:
            for i in range(n):
                to[i] += row[i]
            row += n


def explain(Graph g, const double[::1] parameters, const double[::1] row):
    """Raise what building the graph for these inputs raises."""
    cdef double *value = <double *>allocate(g.nodes, sizeof(double))
    cdef uint32_t i, k
    cdef double x, y
    try:
        for i in range(g.leaves):
            if i < g.inputs:
                value[i] = row[i]
            elif i < g.inputs + g.parameters:
                value[i] = parameters[i - g.inputs]
            else:
                value[i] = g.constant[i - g.inputs - g.parameters]
        for i in range(g.leaves, g.nodes):
            k = i - g.leaves
            x = value[g.a[k]]
            if g.op[k] == SHIFT:
                value[i] = x + -value[g.b[k]]
            elif g.op[k] == LARGER:
                value[i] = value[g.b[k]] if value[g.b[k]] > x else x
            else:
                y = value[g.b[k]] if g.op[k] > LAST_UNARY else g.k[k]
                value[i] = evaluate(g.op[k], x, y)
    finally:
        free(value)
    raise AssertionError("a row without a value has one")
