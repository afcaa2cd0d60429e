"""Shapes of graphs, recalled from one search to the next.

A model in training makes graphs that differ in their numbers, and hardly in their shape. So what a search found below a span of
operands is kept: the nodes, by their distance from the span, and an order for them. Where the next graph has the same nodes
there, which is a quick comparison, they enter the order at once.

What a shape consists of is in _recall.pxd, how one is learnt in _learn.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from microgpt._ops cimport apart
from microgpt._tape cimport DOT, LAST_UNARY, SEEN, UNSEEN, Node, Tape, listed_operands

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    bint is_run(const void *nodes, uint64_t head, uint64_t argument, const uint64_t *step, size_t n)
    uint64_t word(uint32_t first, uint32_t second)

cdef enum:
    FEWEST = 32                     # nodes of a shape; fewer are searched as quickly
    MOST = 1 << 20
    MOST_SHAPES = 1 << 12           # at the next one all are forgotten
    MOST_BYTES = 1 << 26
    SIGHTS_BITS = 10
    TRIES = 1 << 8                  # shapes that one search looks at where another one than expected is there

cdef uint32_t MULTIPLIER = 2654435761   # 2**32 by the golden ratio

cdef struct Sight:
    uint32_t key
    uint32_t times                  # that a shape like this was met since the last one was learnt
    uint32_t wait                   # that must pass
    uint32_t skip                   # bundles of this size not to be made yet,
    uint32_t skipped                # and how many that were the last time

cdef Shape *shapes = NULL           # owned here, for the life of the process; `forget_shapes` empties it
cdef uint32_t shape_count = 0
cdef size_t nbytes = 0              # that the arrays of the shapes take
cdef Sight sights[1 << SIGHTS_BITS]
cdef uint32_t opening = 0           # the first shape that was recalled in the last search
cdef uint32_t expected = 0          # the shape that is tried first
cdef uint32_t previous = NONE       # the last one recalled in this search
cdef uint32_t cursor = 0            # the shape that is tried next where the expected one is not there
cdef uint32_t tries = 0             # how many more, in this search
cdef uint32_t latest = NONE         # `latest_shape`
cdef size_t recalled = 0            # nodes, ever
cdef size_t fewest = FEWEST


cdef void begin_recall() noexcept nogil:
    """Expect the shapes of the last search, from the first one on."""
    global expected, previous, latest, tries
    expected = opening
    previous = latest = NONE
    tries = TRIES


cdef void begin_shape() noexcept nogil:
    """Start to learn a shape, which is the latest one if `add_shape` is called."""
    global latest
    latest = NONE


cdef size_t recall(Tape *t, uint32_t start, uint32_t n, Span beside, Run *order, size_t *nodes) noexcept nogil:
    """Find the shape of what is below the UNSEEN operands [start, start + n) of one or more dots, beside other operands.

    Mark its nodes SEEN, write its runs to `order`, return how many runs and `nodes` they are; 0 if none fits.
    """
    global opening, expected, previous, latest, recalled
    cdef Shape *shape
    cdef uint32_t i
    cdef uint32_t k = find(t, start, n, beside)
    if k == NONE:
        return 0
    shape = &shapes[k]
    for i in range(shape.inside_length):
        memset(&t.seen[start + shape.inside[i].start], SEEN, shape.inside[i].n)
    for i in range(shape.length):
        order[i].first = start + shape.part[i].first
        order[i].count = shape.part[i].count
    if previous != NONE:
        shapes[previous].next = k
    else:
        opening = k
    if not shape.proven:
        shape.proven = True
        sight_of(n, shape.size).wait = 1
    previous = latest = k
    expected = shape.next
    recalled += shape.nodes
    nodes[0] = shape.nodes
    return shape.length


cdef uint32_t find(Tape *t, uint32_t start, uint32_t n, Span beside) noexcept nogil:
    """Return the number of the shape that fits, NONE if none does of those there is time for."""
    global cursor, tries
    cdef uint32_t left = min(shape_count, tries)
    if expected < shape_count and fits(t, &shapes[expected], start, n, beside):
        return expected
    while left > 0:
        left -= 1
        tries -= 1
        cursor = cursor + 1 if cursor + 1 < shape_count else 0
        if fits(t, &shapes[cursor], start, n, beside):
            return cursor
    return NONE


cdef bint all_are(Tape *t, uint32_t start, uint32_t n, uint8_t seen) noexcept nogil:
    """Whether the marks of [start, start + n), n >= 1, are all `seen`."""
    return start < t.top and n <= t.top - start and t.seen[start] == seen and memcmp(
        &t.seen[start], &t.seen[start + 1], n - 1) == 0


cdef bint fits(Tape *t, const Shape *shape, uint32_t start, uint32_t n, Span beside) noexcept nogil:
    """Whether the nodes below [start, start + n) are those of `shape`, UNSEEN, with SEEN operands.

    What were different operands when the shape was learnt must be different ones now, where some are known by their distance and
    some by their id, and none of them may be used beside: else the search might find them used in another sequence.
    """
    cdef const Span *span
    cdef uint32_t i
    if shape.n != n:
        return False
    for i in range(shape.inside_length):
        span = &shape.inside[i]
        if not (all_are(t, start + span.start, span.n, UNSEEN) or FAULT(b"fits: its nodes are UNSEEN")):
            return False
    for i in range(shape.length, 0, -1):    # the last ones, near the span, tell models apart
        if not fits_part(t, shape, &shape.part[i - 1], start, beside):
            return False
    for i in range(shape.outside_length):
        span = &shape.outside[i]
        if not ((is_free(t, start + span.start, span.n, beside) or FAULT(b"fits: computed operands are free")) and (
                apart_from_all(start + span.start, span.n, shape.leaves, shape.leaves_length, 0)
                or FAULT(b"fits: what was computed is no leaf now"))):
            return False
    for i in range(shape.leaves_length):
        if not (is_free(t, shape.leaves[i].start, shape.leaves[i].n, beside) or FAULT(b"fits: leaves are free")):
            return False
    return True


cdef inline bint is_free(Tape *t, uint32_t first, uint32_t size, Span beside) noexcept nogil:
    """Whether the nodes [first, first + size) are SEEN, none of them OPEN, and none is used beside."""
    return ((all_are(t, first, size, SEEN) or FAULT(b"fits: operands are SEEN"))
            and (apart(first, size, beside.start, beside.n) or FAULT(b"fits: nothing is used beside")))


cdef bint apart_from_all(uint32_t first, uint32_t size, const Span *spans, uint32_t length, uint32_t start) noexcept nogil:
    """Whether [first, first + size) has nothing in common with any of the spans, whose distances are from `start`."""
    cdef uint32_t i
    for i in range(length):
        if not apart(first, size, start + spans[i].start, spans[i].n):
            return False
    return True


cdef bint fits_part(Tape *t, const Shape *shape, const Part *part, uint32_t start, Span beside) noexcept nogil:
    cdef const Node *node = &t.node[start + part.first]
    cdef uint64_t head, argument
    if node.op != part.op:
        return False
    if part.op > DOT:
        return fits_listed(t, &shape.listed[part.listed], part, node, start)
    head = word(part.op, part.a + (start & part.moves_a))
    argument = word(part.b + (start & part.moves_b), part.n)
    if part.loose or FAULT(b"fits: which operands"):
        head = word(part.op, node.a)
        if part.op > LAST_UNARY:
            argument = word(node.argument.pair.b, part.n)
    if part.op <= LAST_UNARY:
        argument = node.argument.stamp          # the number does not matter; it is the same for the run
    return is_run(node, head, argument, part.step, part.count) and (
        not part.loose or loose_fits(t, shape, part, node, start, beside))


cdef bint fits_listed(Tape *t, const Listed *listed, const Part *part, const Node *node, uint32_t start) noexcept nogil:
    cdef const uint32_t *operand
    cdef size_t n = listed_operands(node)
    cdef size_t k
    cdef uint32_t i
    cdef uint32_t difference
    for i in range(part.count):
        if node[i].op != part.op or node[i].argument.pair.n != part.n:
            return False
        operand = &t.pool[node[i].a]
        difference = 0
        for k in range(n):                  # without a branch: these can be compared several at once
            difference |= operand[k] ^ (listed[k].id + (start & listed[k].moves))
        if difference != 0 and not FAULT(b"fits: listed operands"):
            return False
        listed += n
    return True


cdef bint loose_fits(Tape *t, const Shape *shape, const Part *part, const Node *node, uint32_t start, Span beside) noexcept nogil:
    """Whether the operands that the loose run `part` has now are SEEN, not used beside, and no others that the shape has."""
    if not loose_fit(t, shape, part.a, reach_a(node, part.count), start, beside):
        return False
    return span_count(node) == 1 or loose_fit(t, shape, part.b, reach_b(node, part.count), start, beside)


cdef bint loose_fit(Tape *t, const Shape *shape, uint32_t learnt, Span now, uint32_t start, Span beside) noexcept nogil:
    return (is_free(t, now.start, now.n, beside)
            and (apart_from_all(now.start, now.n, shape.outside, shape.outside_length, start)
                 or FAULT(b"fits: loose operands are none that are computed"))
            and (now.start == learnt or apart_from_all(now.start, now.n, shape.leaves, shape.leaves_length, 0)
                 or FAULT(b"fits: loose operands are no others")))


cdef inline Span reach_a(const Node *node, uint32_t count) noexcept nogil:
    """The first operands of a run, or those of its first spans."""
    return reach(node.a, node[count - 1].a, extent(node))


cdef inline Span reach_b(const Node *node, uint32_t count) noexcept nogil:
    return reach(node.argument.pair.b, node[count - 1].argument.pair.b, extent(node))


cdef inline Span reach(uint32_t first, uint32_t last, uint32_t n) noexcept nogil:
    return Span(min(first, last), max(first, last) - min(first, last) + n)


cdef uint32_t latest_shape() noexcept nogil:
    """Return the number of the shape recalled or learnt last, NONE if it could not be learnt."""
    return latest


cdef bint stands_before(Tape *t, uint32_t k, uint32_t start, uint32_t width, const Run *tail, size_t length) noexcept nogil:
    """Whether the search could come to the whole span from `start` of shape `k` at once, though the dots of the order's `tail`
    use it part by part, `width` operands each.

    It would find these parts one after the other, with other nodes of the tail in between. So nothing in the tail may use
    operands that the shape has, and the parts must be used in turn, all of them, by dots that lead nowhere else.
    """
    cdef const Shape *shape
    cdef Span loose
    cdef size_t i
    cdef uint32_t lowest = NONE
    cdef uint32_t reached = start + width
    if k == NONE:
        return False
    shape = &shapes[k]
    loose = loose_operands(t, shape, start)
    for i in range(length):
        lowest = min(lowest, tail[i].first)
    for i in range(length):
        if not run_stands_before(t, shape, loose, start, width, &tail[i], lowest, &reached):
            return False
    return reached == start + shape.n or FAULT(b"bundle: all parts are used")


cdef bint run_stands_before(Tape *t, const Shape *shape, Span loose, uint32_t start, uint32_t width, const Run *run,
                            uint32_t lowest, uint32_t *reached) noexcept nogil:
    cdef const Node *node = &t.node[run.first]
    cdef Span a, b
    cdef uint32_t i, k
    if node.op > DOT:
        for i in range(run.count):
            for k in range(listed_operands(&node[i])):
                if not is_foreign(shape, loose, start, Span(t.pool[node[i].a + k], 1)):
                    return False
        return True
    a = reach_a(node, run.count)
    if span_count(node) == 1:
        return is_foreign(shape, loose, start, a)
    b = reach_b(node, run.count)
    if node.op == DOT and not apart(a.start, a.n, start, shape.n):
        a, b = b, a
    if not is_foreign(shape, loose, start, a):
        return False
    if node.op != DOT or apart(b.start, b.n, start, shape.n):
        return is_foreign(shape, loose, start, b)
    if b.start == reached[0] and b.n == width:
        reached[0] += width
    return start <= b.start and b.start + b.n <= reached[0] and a.start + a.n <= lowest


cdef bint is_foreign(const Shape *shape, Span loose, uint32_t start, Span span) noexcept nogil:
    """Whether the shape neither has nor uses any of these operands."""
    return (apart(span.start, span.n, loose.start, loose.n)
            and apart_from_all(span.start, span.n, shape.inside, shape.inside_length, start)
            and apart_from_all(span.start, span.n, shape.outside, shape.outside_length, start)
            and apart_from_all(span.start, span.n, shape.leaves, shape.leaves_length, 0)
            or FAULT(b"bundle: its operands are used by nothing else"))


cdef Span loose_operands(Tape *t, const Shape *shape, uint32_t start) noexcept nogil:
    """Ids from the lowest to the highest operand of loose runs."""
    cdef const Node *node
    cdef Span a, b
    cdef uint32_t i
    cdef uint32_t low = NONE
    cdef uint32_t high = 0
    for i in range(shape.length):
        if shape.part[i].loose:
            node = &t.node[start + shape.part[i].first]
            a = b = reach_a(node, shape.part[i].count)
            if span_count(node) == 2:
                b = reach_b(node, shape.part[i].count)
            low = min(low, min(a.start, b.start))
            high = max(high, max(a.start + a.n, b.start + b.n))
    return Span(low, high - low) if high > 0 else Span(0, 0)


cdef inline Sight *sight_of(uint32_t n, size_t nodes) noexcept nogil:
    """Return the sights of shapes of this size. Others may take them over (Knuth's multiplicative hashing)."""
    cdef uint32_t key = <uint32_t>nodes * 31 + n
    cdef Sight *sight = &sights[(key * MULTIPLIER) >> (32 - SIGHTS_BITS)]
    if sight.key != key:
        sight.key = key
        sight.times = sight.skip = sight.skipped = 0
        sight.wait = 1
    return sight


cdef bint is_worth_a_shape(size_t nodes) noexcept nogil:
    """Whether so many nodes are better recalled than searched."""
    return fewest <= nodes <= MOST


cdef bint count_sight(uint32_t n, size_t size) noexcept nogil:
    """Return whether to learn what was found below a span of length `n`: the second time, and then less and less often until
    a shape of this size is recalled. Graphs of one size and many shapes would else be learnt in vain, over and over.
    """
    cdef Sight *sight = sight_of(n, size)
    sight.times += 1
    if sight.times <= sight.wait:
        return False
    sight.times = 0
    sight.wait = min(2 * sight.wait + 1, 1 << 20)
    return True


cdef bint was_learnt_in_vain(uint32_t n, size_t size) noexcept nogil:
    """Whether shapes of this size were learnt since one was recalled last."""
    return sight_of(n, size).wait > 1


cdef bint may_bundle(uint32_t n, size_t size) noexcept nogil:
    """Return whether to take `n` operands of several dots together."""
    cdef Sight *sight = sight_of(n, size)
    if sight.skip == 0:
        return True
    sight.skip -= 1
    return False


cdef void give_up_bundle(uint32_t n, size_t size) noexcept nogil:
    """Make no bundle of this size for a while, twice as long as the last time."""
    cdef Sight *sight = sight_of(n, size)
    sight.skipped = min(2 * sight.skipped + 1, <uint32_t>1 << 20)
    sight.skip = sight.skipped


cdef void add_shape(Shape *shape) noexcept:
    """Keep a shape, with its arrays; without memory free them."""
    global shapes, shape_count, nbytes, latest
    cdef Shape *moved
    if shape_count == MOST_SHAPES or nbytes > MOST_BYTES:
        forget_shapes()
    if shape_count & (shape_count - 1) == 0:    # full: 0, 1, 2, 4, ...
        moved = <Shape *>realloc(shapes, max(1, 2 * shape_count) * sizeof(Shape))
        if moved == NULL:
            free_shape(shape)
            return
        shapes = moved
    shapes[shape_count] = shape[0]
    latest = shape_count
    shape_count += 1
    nbytes += shape.length * sizeof(Part) + shape.listed_length * sizeof(Listed) + 3 * shape.pieces * sizeof(Span)


cdef void free_shape(Shape *shape) noexcept:
    free(shape.part)
    free(shape.inside)
    free(shape.outside)
    free(shape.leaves)
    free(shape.listed)


cdef void forget_shapes() noexcept:
    global shape_count, nbytes, opening, cursor
    cdef uint32_t i
    for i in range(shape_count):
        free_shape(&shapes[i])
    shape_count = 0
    nbytes = 0
    opening = 0
    cursor = 0
    begin_recall()


def recalled_nodes():
    """Return how many nodes, ever, were not searched but recalled."""
    return recalled


def known_shapes():
    """Return how many shapes are kept."""
    return shape_count


def start_over(smallest=FEWEST):
    """Forget all shapes, and learn from now on those of `smallest` nodes or more. The numbers are the same with any."""
    global fewest
    forget_shapes()
    memset(sights, 0, sizeof(sights))
    fewest = smallest
