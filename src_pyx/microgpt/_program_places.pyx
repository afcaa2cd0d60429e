"""Give instructions their order and their places.

Instructions are put in order by list scheduling: all a * b + c that can be, then the functions of the kind of which most are
ready, and so on. One input: without bound, so that groups are long. Several rows at once: in blocks of the list, since that keeps
results that are needed soon near, and needs fewer slots, which are used again.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from microgpt._program_code cimport Code, allocate, segment
from microgpt._program_listing cimport (
    CODE_LARGER, CODE_MADD, CODE_PROJECT, CODE_SOFTMAX, LEAF_BIT, MOST_LOGITS, NONE, Instruction, Listing, Logits, list_gradient,
    list_product, list_values
)
from microgpt._program_record cimport Graph

cdef enum:
    KINDS = CODE_PROJECT + 1        # ops of instructions, all projections being one
    PROJECTIONS = 2 * MOST_LOGITS + 2   # of the largest softmax
    BLOCK = 256                     # of the list, for several rows
    MOST_SLOTS = 1 << 28            # times the width they are 32-bit numbers
    BEGINS = 1 << 31                # set in an order: a group begins here
    LONGEST = 1 << 15               # segment: then there is a look at pending signals in between


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


def compile_values(Graph g, uint32_t width):
    """Return the code of all outputs."""
    return compile_listing(list_values(g), width)


def compile_gradient(Graph g, uint32_t output, uint32_t width, bint all_nodes=False):
    """Return the code of an output and its gradient by each input, or by each node that depends on one."""
    return compile_listing(list_gradient(g, output, all_nodes), width)


def compile_product(Graph g, uint32_t output, uint32_t width):
    """Return the code of the Hessian of an output times a vector, which follows the inputs."""
    return compile_listing(list_product(g, output), width)
