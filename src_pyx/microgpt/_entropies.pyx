"""The end of a language model: cross entropies, as `cross_entropy` puts them for Rows, of logits that are products of one matrix.

Below them is one shape (_recall.pyx), but the end itself is none: which logit is the target differs from text to text.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from microgpt._ops cimport apart
from microgpt._recall cimport Run, Span, recall
from microgpt._tape cimport (
    ADD_CONSTANT, DOT, EXP, LOG, MUL, MUL_CONSTANT, POW_CONSTANT, SEEN, SUM, UNSEEN, Node, Tape
)

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)
    size_t count_marks(const uint8_t *p, uint8_t mark, size_t n)
    bint is_run(const void *nodes, uint64_t head, uint64_t argument, const uint64_t *step, size_t n)
    uint64_t word(uint32_t first, uint32_t second)

cdef struct Entropies:              # `count` of them, of `n` logits each; the first node of each run
    uint32_t count
    uint32_t n
    uint32_t loss                   # -log
    uint32_t log
    uint32_t probability            # exponential of the target * power
    uint32_t power                  # sum ** -1
    uint32_t sum                    # of exponentials
    uint32_t exponential
    uint32_t difference             # logit - maximum
    uint32_t logit                  # row of `matrix` . x
    uint32_t matrix
    uint32_t x
    uint32_t width                  # of a row, and of each x


cdef size_t take_cross_entropies(Tape *t, uint32_t loss, uint32_t count, Run *order, size_t *nodes) noexcept nogil:
    """Add the UNSEEN operands [loss, loss + count) of a sum, and all that is below them, if they are cross entropies of products
    with vectors whose shape is known: write their runs to `order`, return how many these and their `nodes` are, else 0.

    The search would come to one entropy after the other, in each to the target's logit first, from there to x, and then to the
    other logits in turn. From its end, the order here has the positions from the last to the first and in each one the rows from
    the last to the first, but the target's at the end: as the search, so x and the rows get their contributions in its sequence.
    From logit to loss all is UNSEEN and nothing else uses it before; what the shape uses is apart from the matrix (`beside`).
    """
    cdef Entropies y
    cdef Run *next
    cdef uint32_t i, k, target
    nodes[0] = 0
    if not are_cross_entropies(t, loss, count, &y):
        return 0
    next = order + recall(t, y.x, count * y.width, Span(y.matrix, y.n * y.width), order, nodes)
    if nodes[0] == 0:
        return 0
    for i in range(count):
        k = y.logit + i * y.n
        target = t.node[y.probability + i].a - y.exponential - i * y.n
        next = add_run(t, next, k + target, 1)
        if target > 0:
            next = add_run(t, next, k, target)
        if target + 1 < y.n:
            next = add_run(t, next, k + target + 1, y.n - target - 1)
    for i in range(count):
        next = add_run(t, next, y.difference + i * y.n, y.n)
    next = add_run(t, next, y.exponential, count * y.n)
    next = add_run(t, next, y.sum, count)
    next = add_run(t, next, y.power, count)
    for i in range(count):
        next = add_run(t, next, y.probability + i, 1)
    next = add_run(t, next, y.log, count)
    next = add_run(t, next, y.loss, count)
    nodes[0] += count * (3 * <size_t>y.n + 5)
    return next - order


cdef inline Run *add_run(Tape *t, Run *next, uint32_t first, uint32_t count) noexcept nogil:
    memset(&t.seen[first], SEEN, count)
    next.first = first
    next.count = count
    return next + 1


cdef bint are_cross_entropies(Tape *t, uint32_t loss, uint32_t count, Entropies *y) noexcept nogil:
    """Fill `y` from the losses down, and return whether all is as `cross_entropy` puts it and UNSEEN, the matrix SEEN."""
    cdef const Node *node
    cdef uint32_t i
    y.count = count
    y.loss = loss
    if not are(t, loss, count, MUL_CONSTANT, 1):
        return False
    y.log = t.node[loss].a
    if not are(t, y.log, count, LOG, 1):
        return False
    y.probability = t.node[y.log].a
    y.power = t.node[y.probability].argument.pair.b
    if t.node[y.probability].op != MUL or not are(t, y.power, count, POW_CONSTANT, 1):
        return False
    y.sum = t.node[y.power].a
    y.n = t.node[y.sum].argument.pair.n
    if t.node[y.sum].op != SUM or count > t.top // y.n or not are(t, y.sum, count, SUM, y.n):
        return False
    y.exponential = t.node[y.sum].a
    if not are(t, y.exponential, count * y.n, EXP, 1):
        return False
    y.difference = t.node[y.exponential].a
    if t.node[y.difference].op != ADD_CONSTANT:
        return False
    y.logit = t.node[y.difference].a
    node = &t.node[y.logit]
    if node.op != DOT:
        return False
    y.matrix = node.a
    y.x = node.argument.pair.b
    y.width = node.argument.pair.n
    for i in range(count):
        node = &t.node[y.probability + i]
        if t.seen[y.probability + i] != UNSEEN or node.op != MUL or node.argument.pair.b != y.power + i or (
                node.a - y.exponential - i * y.n >= y.n and not FAULT(b"entropies: the target is a logit")):
            return False
        node = &t.node[y.difference + i * y.n]
        if not are(t, y.difference + i * y.n, y.n, ADD_CONSTANT, 1) or (
                node.a != y.logit + i * y.n and not FAULT(b"entropies: logits in turn")):
            return False
        node = &t.node[y.logit + i * y.n]
        if not are(t, y.logit + i * y.n, y.n, DOT, y.width) or (node.a != y.matrix and not FAULT(b"entropies: one matrix")) or (
                node.argument.pair.b != y.x + i * y.width or node.argument.pair.n != y.width):
            return False
    return ((count_marks(&t.seen[y.matrix], SEEN, y.n * <size_t>y.width) == y.n * <size_t>y.width
             or FAULT(b"entropies: the matrix is SEEN"))
            and apart(y.matrix, y.n * y.width, y.x, count * y.width))


cdef inline bint are(Tape *t, uint32_t first, uint32_t count, uint8_t op, uint32_t step) noexcept nogil:
    """Whether the `count` nodes from `first` on are UNSEEN and of this op, the first operand a `step` further each time, all else
    equal.
    """
    cdef const Node *node = &t.node[first]
    cdef uint64_t steps[2]
    steps[0] = word(0, step)
    steps[1] = 0
    return (first < t.top and count <= t.top - first and node.op == op and count_marks(&t.seen[first], UNSEEN, count) == count
            and is_run(node, word(op, node.a), node.argument.stamp, steps, count))
