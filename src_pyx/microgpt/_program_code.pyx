"""Give instructions their places, and run them.

Instructions are put in order by list scheduling: all a * b + c that can be, then the functions of the kind of which most are
ready, and so on. One input: without bound, so that groups are long. Several rows at once: in blocks of the list, since that keeps
results that are needed soon near, and needs fewer slots, which are used again.
"""

from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_Occurred
from libc.math cimport NAN, fabs, frexp, isfinite, pow
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport abs, calloc, free, malloc
from libc.string cimport memcpy, memset

from microgpt._ops cimport evaluate, partial_a, partial_b
from microgpt._program_listing cimport (
    CODE_LARGER, CODE_MADD, CODE_PROJECT, CODE_RECIPROCAL, CODE_SOFTMAX, CODE_SQUARE, LEAF_BIT, MOST_LOGITS, NONE, Instruction,
    Logits, list_gradient, list_product, list_values
)
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
    KINDS = CODE_PROJECT + 1        # ops of instructions, all projections being one
    PROJECTIONS = 2 * MOST_LOGITS + 2   # of the largest softmax
    BLOCK = 256                     # of the list, for several rows
    SPARE = 16                      # workspaces kept
    MOST_SLOTS = 1 << 28            # times the width they are 32-bit numbers
    BEGINS = 1 << 31                # set in an order: a group begins here
    LONGEST = 1 << 15               # segment: then there is a look at pending signals in between
    BETWEEN_SIGNALS = 1 << 18       # instructions between two looks at pending signals: a millisecond


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


cdef struct Schedule:               # scratch of list scheduling, for instructions [low, high)
    uint32_t *waits                 # operands within that are not there yet
    uint32_t *user_start            # where the users of each start, and the last one's end
    uint32_t *user
    uint32_t *next                  # queues of instructions that wait for nothing, one for each kind
    uint32_t first[KINDS]
    uint32_t last[KINDS]
    uint32_t length[KINDS]


cdef inline void enqueue(Schedule *s, uint32_t kind, uint32_t i) noexcept nogil:
    s.next[i] = NONE
    if s.length[kind] == 0:
        s.first[kind] = i
    else:
        s.next[s.last[kind]] = i
    s.last[kind] = i
    s.length[kind] += 1


cdef struct Operands:
    const uint32_t *names
    uint32_t n
    uint32_t three[3]


cdef inline void find_operands(const Instruction *i, const Logits *logits, const uint32_t *logit, Operands *found) noexcept nogil:
    cdef const Logits *of
    if i.op == CODE_SOFTMAX:
        of = &logits[i.a ^ LEAF_BIT]
        found.names = logit + of.first
        found.n = of.n
        return
    found.three[0], found.three[1], found.three[2] = i.a, i.b, i.c
    found.names = found.three
    found.n = 1 if i.op >= CODE_PROJECT else 3


cdef inline uint32_t kind_of(const Instruction *i) noexcept nogil:
    return min(i.op, <uint32_t>CODE_PROJECT)


cdef inline bint is_within(uint32_t name, uint32_t low) noexcept nogil:
    return not name & LEAF_BIT and name >= low


cdef void schedule(const Instruction *code, const Logits *logits, const uint32_t *logit, uint32_t low, uint32_t high, Schedule *s,
                   uint32_t *order) noexcept nogil:
    """Write the numbers of the instructions [low, high) to `order`, grouped by kind."""
    cdef uint32_t n = high - low
    cdef uint32_t i, k, kind, done, user, begins
    cdef Operands operand
    memset(s.waits, 0, n * sizeof(uint32_t))
    memset(s.user_start, 0, (n + 1) * sizeof(uint32_t))
    memset(s.length, 0, sizeof(s.length))
    for i in range(n):
        find_operands(&code[low + i], logits, logit, &operand)
        for k in range(operand.n):
            if is_within(operand.names[k], low):
                s.user_start[operand.names[k] - low] += 1
                s.waits[i] += 1
    for i in range(n):                  # now where the users of each end
        s.user_start[i + 1] += s.user_start[i]
    for i in range(n, 0, -1):           # each list is filled from its end
        find_operands(&code[low + i - 1], logits, logit, &operand)
        for k in range(operand.n):
            if is_within(operand.names[k], low):
                s.user_start[operand.names[k] - low] -= 1
                s.user[s.user_start[operand.names[k] - low]] = i - 1
    for i in range(n):
        if s.waits[i] == 0:
            enqueue(s, kind_of(&code[low + i]), i)
    done = 0
    kind = CODE_MADD
    while done < n:
        if s.length[CODE_PROJECT] > 0:      # they are there already
            kind = CODE_PROJECT
        elif s.length[kind] == 0:
            for k in range(KINDS):
                if s.length[k] > s.length[kind]:
                    kind = k
        begins = BEGINS
        k = s.length[kind]              # of functions, those that are ready now; what they make ready of their kind may grow
        while s.length[kind] > 0 and (kind == CODE_MADD or k > 0):
            i = s.first[kind]
            s.first[kind] = s.next[i]
            order[done] = low + i + begins
            begins = 0
            s.length[kind] -= 1
            k -= 1
            done += 1
            for user in range(s.user_start[i], s.user_start[i + 1]):
                s.waits[s.user[user]] -= 1
                if s.waits[s.user[user]] == 0:
                    enqueue(s, kind_of(&code[low + s.user[user]]), s.user[user])
        kind = CODE_MADD


cdef void *allocate(size_t n, size_t size) except NULL:
    cdef void *made = malloc((n + 1) * size)
    if made == NULL:
        raise MemoryError(f"no room for a program of {n} instructions")
    return made


cdef Code compile_listing(Listing x, uint32_t width):
    """Return the code of what the outputs need, for `width` rows at once: 1, 4 or 8."""
    cdef Code made = Code.__new__(Code)
    cdef uint32_t *alive = NULL     # the new number of each instruction, NONE for what nothing needs; freed below, as the next
    cdef uint32_t *order = NULL
    cdef Instruction *code = NULL
    cdef Schedule s
    cdef uint32_t n = 0
    cdef uint32_t i, low, high, block
    cdef uint32_t leaves = x.fixed + x.constants
    memset(&s, 0, sizeof(Schedule))
    made.width = width
    made.variables = x.g.inputs + x.directions
    made.parameters = x.g.parameters
    made.constants = x.constants
    made.outputs = <uint32_t>len(x.outputs)
    try:
        alive = <uint32_t *>allocate(x.n, sizeof(uint32_t))
        code = <Instruction *>allocate(x.n, sizeof(Instruction))
        made.constant = <double *>allocate(x.constants, sizeof(double))
        made.output = <uint32_t *>allocate(made.outputs, sizeof(uint32_t))
        memcpy(made.constant, x.constant, x.constants * sizeof(double))
        n = keep_needed(x, alive, code)
        block = max(n, <uint32_t>1) if width == 1 else BLOCK
        order = <uint32_t *>allocate(n, sizeof(uint32_t))
        high = min(n, block)
        s.waits = <uint32_t *>allocate(high, sizeof(uint32_t))
        s.user_start = <uint32_t *>allocate(high + 1, sizeof(uint32_t))
        s.user = <uint32_t *>allocate(3 * <size_t>high + x.logit_names, sizeof(uint32_t))
        s.next = <uint32_t *>allocate(high, sizeof(uint32_t))
        made.segments = <segment *>allocate(n, sizeof(segment))
        made.places = <uint32_t *>allocate(4 * <size_t>n + 3 * <size_t>x.logit_names, sizeof(uint32_t))
        made.n = n
        with nogil:
            low = 0
            while low < n:
                high = min(n, low + block)
                schedule(code, x.logits, x.logit, low, high, &s, order + low)
                low = high
        for i in range(made.outputs):
            made.output[i] = x.outputs[i]
            if not made.output[i] & LEAF_BIT:
                made.output[i] = alive[made.output[i]]
        give_places(made, x, code, order, leaves)
    finally:
        free(alive)
        free(order)
        free(code)
        free(s.waits)
        free(s.user_start)
        free(s.user)
        free(s.next)
    return made


cdef uint32_t keep_needed(Listing x, uint32_t *alive, Instruction *code) except? NONE:
    """Copy what the outputs need to `code`, with their new names. Return how many."""
    cdef uint32_t i, k, n
    cdef Instruction new
    cdef Operands operand
    memset(alive, 0xff, x.n * sizeof(uint32_t))
    for i in x.outputs:
        if not i & LEAF_BIT:
            alive[i] = 0
    for i in range(x.n, 0, -1):
        if alive[i - 1] == NONE:
            continue
        find_operands(&x.code[i - 1], x.logits, x.logit, &operand)
        for k in range(operand.n):
            if not operand.names[k] & LEAF_BIT:
                alive[operand.names[k]] = 0
    n = 0
    for i in range(x.n):
        if alive[i] == NONE:
            continue
        new = x.code[i]
        code[n].op = new.op
        code[n].a = new.a if new.a & LEAF_BIT else alive[new.a]
        code[n].b = new.b if new.b & LEAF_BIT else alive[new.b]
        code[n].c = new.c if new.c & LEAF_BIT else alive[new.c]
        alive[i] = n
        n += 1
    for i in range(x.logit_names):      # those of a softmax that nothing needs have no new number
        if not x.logit[i] & LEAF_BIT:
            x.logit[i] = alive[x.logit[i]]
    return n


cdef void add_to_segments(Code made, uint32_t op, bint begins) noexcept nogil:
    """Add one more instruction. Of functions, those of a group make a segment: none of them depends on another."""
    cdef segment *last = &made.segments[made.count - 1] if made.count > 0 else NULL
    if last != NULL and last.op == op and last.n < LONGEST and (not begins or op == CODE_MADD or op == CODE_LARGER):
        last.n += 1
    else:
        made.segments[made.count] = segment(op, 1)
        made.count += 1


cdef inline uint32_t place_of(uint32_t name, const uint32_t *place) noexcept nogil:
    return name ^ LEAF_BIT if name & LEAF_BIT else place[name]


cdef int give_places(Code made, Listing x, const Instruction *code, const uint32_t *order, uint32_t leaves) except -1:
    """Give each result a slot that nobody needs any more, the one that was given back last."""
    cdef uint32_t *place = NULL     # freed below, as the next three
    cdef uint32_t *last_use = NULL  # position of the last instruction that reads a result; NONE for outputs
    cdef uint32_t *given_back = NULL
    cdef uint32_t *projection = NULL    # instructions, PROJECTIONS for each softmax, NONE for those that nothing needs
    cdef uint32_t free_slots = 0
    cdef uint32_t top = leaves + 1
    cdef uint32_t unread = leaves   # the slot of results that nothing needs
    cdef uint32_t n = <uint32_t>made.n
    cdef uint32_t i, k, name, results
    cdef uint32_t *result
    cdef uint32_t *p = made.places
    cdef bint begins
    cdef Instruction now
    cdef Operands operand
    try:
        place = <uint32_t *>allocate(n, sizeof(uint32_t))
        last_use = <uint32_t *>allocate(n, sizeof(uint32_t))
        given_back = <uint32_t *>allocate(n, sizeof(uint32_t))
        projection = <uint32_t *>allocate(PROJECTIONS * <size_t>x.softmaxes, sizeof(uint32_t))
        memset(projection, 0xff, PROJECTIONS * <size_t>x.softmaxes * sizeof(uint32_t))
        for i in range(n):
            name = order[i] & ~BEGINS
            now = code[name]
            last_use[name] = i
            find_operands(&now, x.logits, x.logit, &operand)
            for k in range(operand.n):
                if not operand.names[k] & LEAF_BIT:
                    last_use[operand.names[k]] = i
            if now.op >= CODE_PROJECT:
                projection[PROJECTIONS * <size_t>(code[now.a].a ^ LEAF_BIT) + now.op - CODE_PROJECT] = name
        for i in range(made.outputs):
            if not made.output[i] & LEAF_BIT:
                last_use[made.output[i]] = NONE
        for i in range(n):
            name = order[i] & ~BEGINS
            now = code[name]
            begins = order[i] & BEGINS
            if now.op >= CODE_PROJECT:
                continue
            find_operands(&now, x.logits, x.logit, &operand)
            result = &name
            results = 1
            if now.op == CODE_SOFTMAX:
                p[0] = operand.n
                p += 1
                result = &projection[PROJECTIONS * <size_t>(now.a ^ LEAF_BIT)]
                results = 2 * operand.n + 2
            for k in range(operand.n):
                p[k] = place_of(operand.names[k], place) * made.width
            p += operand.n
            for k in range(operand.n):  # the result may take the place of an operand
                if not operand.names[k] & LEAF_BIT and last_use[operand.names[k]] == i:
                    last_use[operand.names[k]] = NONE
                    given_back[free_slots] = place[operand.names[k]]
                    free_slots += 1
            for k in range(results):
                if result[k] == NONE:
                    p[k] = unread * made.width
                    continue
                if free_slots > 0:
                    free_slots -= 1
                    place[result[k]] = given_back[free_slots]
                else:
                    place[result[k]] = top
                    top += 1
                p[k] = place[result[k]] * made.width
            p += results
            add_to_segments(made, now.op, begins)
        made.words = p - made.places
        made.slots = top
        if top >= MOST_SLOTS:
            raise MemoryError(f"a program has at most {MOST_SLOTS} slots, this one needs {top}")
        for i in range(made.outputs):
            made.output[i] = place_of(made.output[i], place)
    finally:
        free(place)
        free(last_use)
        free(given_back)
        free(projection)
    return 0


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
        while until < code.count and work < BETWEEN_SIGNALS // 4:
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
                if work >= BETWEEN_SIGNALS // 4:
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


def compile_values(Graph g, uint32_t width):
    """Return the code of all outputs."""
    return compile_listing(list_values(g), width)


def compile_gradient(Graph g, uint32_t output, uint32_t width, bint all_nodes=False):
    """Return the code of an output and its gradient by each input, or by each node that depends on one."""
    return compile_listing(list_gradient(g, output, all_nodes), width)


def compile_product(Graph g, uint32_t output, uint32_t width):
    """Return the code of the Hessian of an output times a vector, which follows the inputs."""
    return compile_listing(list_product(g, output), width)


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
