"""Backward, along the topological order."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t

from microgpt._ops cimport (
    apart, name_of, operand, operand_count, propagate, propagate_products, propagate_run, reads_operands
)
from microgpt._order cimport BETWEEN_SIGNALS, arrange, first, forget, free_large, operands, search, second
from microgpt._recall cimport Run
from microgpt._tape cimport ADD, DOT, LAST_BINARY, LAST_UNARY, LEAF, MUL, Node, Tape, written

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)


cdef bint is_stale(Tape *t, uint32_t i) noexcept nogil:
    """Whether a leaf that node `i` needs for its partials was written after the node was made."""
    cdef uint32_t k
    cdef uint8_t op = t.node[i].op
    if not reads_operands(op) or FAULT(b"backward: no leaf was changed"):
        return False
    if op <= LAST_UNARY:
        return written_after(t, t.node[i].a, i)
    if op <= LAST_BINARY:
        return written_after(t, t.node[i].a, i) or written_after(t, t.node[i].argument.pair.b, i)
    for k in range(operands(t, i)):
        if written_after(t, first(t, i, k), i) or written_after(t, second(t, i, k), i):
            return True
    return False


cdef inline bint written_after(Tape *t, uint32_t child, uint32_t i) noexcept nogil:
    return t.node[child].op == LEAF and written(t, child) > i


cdef int refuse_stale(Tape *t, uint32_t i) except -1:
    """Raise if a partial of node `i` would be computed from a leaf that changed since."""
    if is_stale(t, i):
        raise RuntimeError(f"a leaf used by `{name_of(t.node[i].op)}` was changed after it was used: compute the result again, "
                           "then ask for its gradients")
    return 0


cdef int refuse_any_stale(Tape *t) except -1:
    """Raise if a node of the order is stale. Only nodes older than the last write are looked at."""
    cdef uint32_t last_write = t.write_top[t.writes - 1] if t.writes > 0 else 0
    cdef size_t k
    cdef uint32_t i
    for k in range(search.length):
        if search.order[k].first < last_write:
            for i in range(search.order[k].first, search.order[k].first + search.order[k].count):
                refuse_stale(t, i)
    return 0


cdef int backward(Tape *t, uint32_t root) except -1:
    """Add d(root)/d(node) to the grad of every node that `root` reaches. The grad of root itself becomes 1."""
    begin(t)
    try:
        propagate_all(t, root, arrange(t, root))
    finally:
        end(t)
    return 0


cdef int propagate_all(Tape *t, uint32_t root, bint split) except -1:
    cdef size_t k
    cdef size_t work = 0
    cdef uint32_t i, count
    cdef double g
    cdef double *data = t.data
    cdef double *grad = t.grad
    cdef const Run *order = search.order
    cdef const Node *node
    refuse_any_stale(t)
    grad[root] = 1.0
    k = search.length
    while k > 0:
        work += order[k - 1].count
        if work >= BETWEEN_SIGNALS:
            work = 0
            PyErr_CheckSignals()    # a handler may make nodes, for which the arrays may move
            data = t.data
            grad = t.grad
        i = order[k - 1].first
        node = &t.node[i]
        g = grad[i]
        if order[k - 1].count > 1:
            count = count_products(t, order, k) if node.op == DOT else 1
            if count > 1:
                propagate_products(t, order[k - count].first, order[k - 1].count, count)
                work += (count - 1) * order[k - 1].count
                k -= count - 1
            else:
                propagate_run(t, i, order[k - 1].count)
        elif node.op == ADD:        # most nodes of a script are sums and products: without a call
            grad[node.a] += g
            grad[node.argument.pair.b] += g
        elif node.op == MUL:
            grad[node.a] += data[node.argument.pair.b] * g
            grad[node.argument.pair.b] += data[node.a] * g
        elif split:
            propagate(t, i, search.segment[k - 1].low, search.segment[k - 1].high)
        else:
            propagate(t, i, 0, operands(t, i))
        k -= 1
    return 0


cdef inline uint32_t count_products(Tape *t, const Run *order, size_t k) noexcept nogil:
    """Return how many of the `k` first entries of `order`, from the last one back, are the products of one matrix with vectors
    that follow each other: at least 1, and 1 for any other run of dots.
    """
    cdef const Run *run = &order[k - 1]
    cdef const Node *node = &t.node[run.first]
    cdef uint32_t end = max(node.a + run.count * node.argument.pair.n, node.argument.pair.b + node.argument.pair.n)
    cdef uint32_t count = 1
    if not is_product(t, run):
        return 1
    while count < k and (end <= run[-1].first or FAULT(b"products: operands are below all of them")) and (
            is_product_before(t, run - 1, run)):
        run -= 1
        count += 1
    return count


cdef inline bint is_product(Tape *t, const Run *run) noexcept nogil:
    """Whether a run of dots is the product of a matrix with a vector, which have nothing in common."""
    cdef const Node *node = &t.node[run.first]
    cdef uint32_t n = node.argument.pair.n
    return node[1].a - node.a == n and node[1].argument.pair.b == node.argument.pair.b and (
        apart(node.a, run.count * n, node.argument.pair.b, n) or FAULT(b"products: matrix and vector are apart"))


cdef inline bint is_product_before(Tape *t, const Run *run, const Run *next) noexcept nogil:
    """Whether `run` is the product of the matrix of `next` with the vector just before that of `next`."""
    cdef const Node *node = &t.node[run.first]
    cdef const Node *after = &t.node[next.first]
    return (node.op == DOT and run.count == next.count and run.first + run.count == next.first
            and (node.a == after.a or FAULT(b"products: one matrix"))
            and node.argument.pair.n == after.argument.pair.n
            and (node.argument.pair.b + node.argument.pair.n == after.argument.pair.b or FAULT(b"products: vectors follow"))
            and is_product(t, run))


cdef int zero_grad(Tape *t, uint32_t root) except -1:
    """Set the grad of every node that `root` reaches to 0."""
    cdef size_t k
    cdef uint32_t i, j
    begin(t)
    try:
        arrange(t, root)
        t.grad[root] = 0.0
        for k in range(search.length):
            for i in range(search.order[k].first, search.order[k].first + search.order[k].count):
                for j in range(operand_count(t, i)):
                    t.grad[operand(t, i, j)] = 0.0
    finally:
        end(t)
    return 0


cdef int begin(Tape *t) except -1:
    """Start a search: until its end ids stay as they are, though a signal handler may run Python code in the middle."""
    if t.fixed:
        raise RuntimeError("another backward() or zero_grad() is still running")
    t.fixed = True
    return 0


cdef void end(Tape *t) noexcept:
    """End a search, complete or interrupted."""
    forget(t)
    t.fixed = False
    free_large()
