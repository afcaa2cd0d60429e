"""Backward through the tasks of a plan (_schedule.pyx), several rows at once where they are alike.

Each of these functions does some tasks from `task` on, of those that are `left`, and returns how many. It adds to `work` what
they cost: about the number of nodes.
"""

from libc.stdint cimport uint8_t, uint32_t

from microgpt._ops cimport apart, partial_a, partial_b, propagate, propagate_run
from microgpt._schedule cimport BOTH, PIVOT, SIDE_A, SIDE_B, Pivot
from microgpt._tape cimport (
    ADD, DOT, DOT_STRIDED, LAST_BINARY, LAST_UNARY, MUL, RUN, SUM, Node, Steps, look_at_run, node_at, op_at, record_at, steps_of,
    stride_at
)
from microgpt._vectors cimport chosen

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)


cdef struct Dots:                   # of a task: node i is of [a + i * step_a, ...) and [b + i * step_b, ...)
    uint32_t a
    uint32_t b
    uint32_t step_a
    uint32_t step_b
    uint32_t n                      # operands on each side


cdef inline Dots dots_of(Tape *t, const Task *task) noexcept nogil:
    cdef Node node
    cdef Steps steps = look_at_run(t, task.first, task.count, &node)
    if task.count == 1:
        return Dots(node.a, node.argument.pair.b, node.argument.pair.n, 0, node.argument.pair.n)
    return Dots(node.a, node.argument.pair.b, steps.step_a, steps.step_b, node.argument.pair.n)


cdef size_t propagate_computed(Tape *t, const Task *task, size_t left, const Pivot *pivots, size_t *work) noexcept nogil:
    """Tasks at computed nodes."""
    cdef uint8_t op = op_at(t, task.first)
    work[0] += task.count
    if task.sides & PIVOT:
        propagate_pivot(t, task, &pivots[task.leaves])
        return 1
    if op == DOT and (task.sides != BOTH or task.count > 1):
        return propagate_dots(t, task, left, work)
    if op == DOT_STRIDED:
        propagate_strided(t, task)
    elif op <= LAST_BINARY and op > LAST_UNARY and task.sides != BOTH:
        propagate_side(t, task)
    else:
        propagate_nodes(t, task)
    return 1


cdef inline void propagate_nodes(Tape *t, const Task *task) noexcept nogil:
    """To all operands."""
    if task.count > 1:
        propagate_run(t, task.first, task.count)
    else:
        propagate(t, task.first, 0, record_at(t, task.first).argument.pair.n)


cdef size_t propagate_dots(Tape *t, const Task *task, size_t left, size_t *work) noexcept nogil:
    cdef Dots dots = dots_of(t, task)
    cdef double *grad = t.grad
    cdef const double *data = t.data
    cdef const double *g = &t.grad[task.first]
    cdef uint32_t n = dots.n
    cdef uint32_t count = task.count
    cdef size_t vectors
    if task.sides == SIDE_B and dots.step_b == 0:
        vectors = 1
        if dots.step_a == n:
            vectors = count_vectors(t, task, left, &dots)
        if vectors > 1:
            work[0] += (vectors - 1) * count
            task += vectors - 1
            dots.b -= (vectors - 1) * n
            chosen.add_rows(&grad[dots.b], &data[dots.a], &grad[task.first], count, 1, vectors, count, n)
        else:
            chosen.add_row(&grad[dots.b], &data[dots.a], g, count, n, dots.step_a)
        return vectors
    if task.sides == SIDE_A and (dots.step_a == 0 or count == 1):
        chosen.add_row(&grad[dots.a], &data[dots.b], g, count, n, dots.step_b if count > 1 else n)
        return 1
    if task.sides != BOTH:
        propagate_side(t, task)
        return 1
    if dots.step_a == 0 and n <= dots.step_b < t.top and (
            apart(dots.a, n, dots.b, (count - 1) * dots.step_b + n) or FAULT(b"dots with one span: apart")):
        chosen.add_row(&grad[dots.a], &data[dots.b], g, count, n, dots.step_b)
        chosen.add_outer(&grad[dots.b], &data[dots.a], g, count, n, dots.step_b)
        return 1
    propagate_run(t, task.first, count)
    return 1


cdef void propagate_pivot(Tape *t, const Task *task, const Pivot *pivot) noexcept nogil:
    """A product from the last row to the first, but for that of the pivot, which comes last."""
    cdef Node node = node_at(t, task.first)
    cdef uint32_t n = node.argument.pair.n
    cdef uint32_t last = node_at(t, pivot.user).a - pivot.row
    cdef const double *w = &t.data[node.a]
    cdef const double *g = &t.grad[task.first]
    cdef double *to = &t.grad[node.argument.pair.b]
    chosen.add_row(to, w + (last + 1) * <size_t>n, g + last + 1, task.count - last - 1, n, n)
    chosen.add_row(to, w, g, last, n, n)
    chosen.add_row(to, w + last * <size_t>n, g + last, 1, n, n)


cdef size_t count_vectors(Tape *t, const Task *task, size_t left, const Dots *dots) noexcept nogil:
    """Return how many tasks are products of the same rows of a matrix, with vectors that follow each other, from the last to the
    first.
    """
    cdef Dots next
    cdef uint32_t n = dots.n
    cdef uint32_t b = dots.b
    cdef size_t count = 1
    while count < left:
        if (task[count].count != task.count or task[count].sides != SIDE_B or op_at(t, task[count].first) != DOT
                or task[count].first + task.count != task[count - 1].first):
            break
        next = dots_of(t, &task[count])
        if next.a != dots.a or next.n != n or next.b + n != b or next.step_a != n or next.step_b != 0:
            break
        if dots.b + n > task[count].first and not FAULT(b"products: operands are below all of them"):
            break
        b -= n
        count += 1
    return count


cdef void propagate_strided(Tape *t, const Task *task) noexcept nogil:
    cdef Node node = node_at(t, task.first)
    cdef uint32_t a = node.a
    cdef uint32_t b = node.argument.pair.b
    cdef uint32_t stride = stride_at(t, task.first)
    cdef uint32_t length = node.argument.pair.n
    cdef uint32_t i
    if 1 < task.count <= stride:        # the weights, computed after the values, are apart from these
        chosen.add_dots(&t.grad[a], &t.data[b], &t.grad[task.first], length, task.count, stride)
        chosen.add_outer(&t.grad[b], &t.grad[task.first], &t.data[a], length, task.count, stride)
        return
    for i in range(task.count, 0, -1):
        propagate(t, task.first + i - 1, 0, length)


cdef void propagate_side(Tape *t, const Task *task) noexcept nogil:
    """Of nodes with two operands or spans, one side."""
    cdef Dots dots = dots_of(t, task)
    cdef double *grad = t.grad
    cdef const double *data = t.data
    cdef bint first_side = task.sides == SIDE_A
    cdef uint8_t op = op_at(t, task.first)
    cdef uint32_t i, k, a, b, to, other
    cdef double g
    for i in range(task.count, 0, -1):
        a = dots.a + (i - 1) * dots.step_a
        b = dots.b + (i - 1) * dots.step_b
        g = grad[task.first + i - 1]
        to = a if first_side else b
        other = b if first_side else a
        if op == ADD:
            grad[to] += g
        elif op == MUL:
            grad[to] += data[other] * g
        elif op == DOT:
            for k in range(dots.n):
                grad[to + k] += data[other + k] * g
        elif first_side:
            grad[a] += partial_a(op, data[a], data[b], data[task.first + i - 1]) * g
        else:
            grad[b] += partial_b(op, data[a], data[b], data[task.first + i - 1]) * g


cdef size_t propagate_leaves(Tape *t, const Task *task, size_t left, size_t *work) noexcept nogil:
    """Tasks at leaves, which are of one set for as long as these are."""
    cdef uint8_t op = op_at(t, task.first)
    cdef Dots dots
    cdef size_t done
    if op == DOT and task.sides == SIDE_A:
        done = propagate_matrix(t, task, left, work)
        if done > 0:
            return done
    work[0] += task.count
    if op == SUM or op <= LAST_UNARY or task.sides == BOTH:
        propagate_nodes(t, task)
    else:
        dots = dots_of(t, task)
        if op == DOT and task.sides == SIDE_A and dots.step_b == 0 and dots.step_a == dots.n:
            chosen.add_outer(&t.grad[dots.a], &t.data[dots.b], &t.grad[task.first], task.count, dots.n, dots.n)
        else:
            propagate_side(t, task)
    return 1


cdef struct Product:                # of rows of a matrix, at leaves from `a` on, and a vector
    uint32_t first                  # nodes, one for each row
    uint32_t rows
    uint32_t a
    uint32_t b
    uint32_t n


cdef size_t whole_product(Tape *t, const Task *task, size_t left, Product *product) noexcept nogil:
    """Put tasks together that are parts of the product of a matrix with one vector. Return how many, 0 if it is no such."""
    cdef const Task *part = task
    cdef const Task *end = task + left
    cdef const Node *record = record_at(t, task.first)
    cdef Dots dots = dots_of(t, task)
    cdef bint alike = record.op & RUN and steps_of(record).step_a == dots.n and steps_of(record).step_b == 0
    cdef uint32_t set = task.leaves
    cdef uint32_t low = task.first
    cdef uint32_t high = task.first
    cdef uint32_t count = 0
    product.n = dots.n
    product.b = dots.b
    product.a = dots.a - task.first * dots.n        # modulo 2**32: of a node 0
    while part < end and part.leaves == set and part.sides == SIDE_A and op_at(t, part.first) == DOT:
        if not alike or record_at(t, part.first) != record:     # mostly all are of one run
            dots = dots_of(t, part)
            if dots.b != product.b or dots.n != product.n or dots.step_b != 0 or dots.step_a != dots.n or (
                    dots.a - part.first * dots.n != product.a):
                break
        low = min(low, part.first)
        high = max(high, part.first + part.count)
        count += part.count
        part += 1
    product.first = low
    product.rows = count
    product.a += low * product.n
    return part - task if high - low == count else 0


cdef size_t propagate_matrix(Tape *t, const Task *task, size_t left, size_t *work) noexcept nogil:
    """Tasks at the leaves of a matrix, of its products with vectors that follow each other. Return how many, 0 if none."""
    cdef Product product, next
    cdef size_t done = whole_product(t, task, left, &product)
    cdef size_t parts
    cdef uint32_t vectors = 1
    if done == 0:
        return 0
    while done < left and task[done].leaves == task.leaves and op_at(t, task[done].first) == DOT and (
            task[done].sides == SIDE_A):
        parts = whole_product(t, task + done, left - done, &next)
        if parts == 0 or next.a != product.a or next.rows != product.rows or next.n != product.n or (
                next.b + next.n != product.b or next.first + next.rows != product.first):
            break
        product.b = next.b
        product.first = next.first
        vectors += 1
        done += parts
    work[0] += product.rows * <size_t>vectors
    chosen.add_rows(&t.grad[product.a], &t.data[product.b], &t.grad[product.first], 1, product.rows, product.rows, vectors,
                    product.n)
    return done
