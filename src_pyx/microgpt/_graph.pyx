"""Backward, along the topological order.

While a pass goes on, other code may run: signal handlers, own `_backward` functions, and with them other threads. It may make
nodes, drop them, and go through other graphs. So a pass keeps the order it was given, ids stay as they are until it ends
(`fixed`), and where other code ran the pass looks whether leaves were changed. Only searches are one at a time: they share marks.
A thread waits for that of another, also where it gives a leaf a `_backward` or takes it away, which is a mark, too.
"""

from cpython.dict cimport PyDict_Next
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from microgpt._ops cimport name_of, operand, operand_count, propagate, propagate_run, reads_operands
from microgpt._order cimport BETWEEN_SIGNALS, Segment, arrange, first, forget, free_large, operands, search, second
from microgpt._plans cimport keep_plan, use_plan
from microgpt._propagate cimport propagate_computed, propagate_leaves
from microgpt._schedule cimport Plan, Task, schedule
from microgpt._tape cimport (
    ADD, CUSTOM, LAST_BINARY, LAST_UNARY, LEAF, LIVE, MUL, NO_PARTIALS, SEEN, UNSEEN, Handle, Node, Run, Tape, has_changed,
    look_at, node_at, op_at, record_at, references, tape
)

import os
from time import sleep

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()


cdef struct Pass:                   # a backward() or zero_grad() under way; it stands on the stack of its caller
    Run *order                      # owned while the pass goes on; if no other search came, `search` has it again afterwards
    Segment *segment
    size_t length
    Plan plan                       # owned, too; empty where the order is taken as it is
    bint split                      # whether sums are in segments
    unsigned long thread            # that runs it
    Pass *before                    # the pass that was under way when it began, or NULL

cdef Pass *latest                   # of those under way
cdef bint lent                      # whether the arrays of `search` are those of `latest`
cdef Plan spare                     # room for the next plan
cdef bint searching
cdef unsigned long searcher         # thread of the search

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)


cdef bint is_stale(Tape *t, uint32_t i) noexcept nogil:
    """Whether a leaf that node `i` needs for its partials was written after the node was made."""
    cdef uint32_t k
    cdef Node node = node_at(t, i)
    cdef uint8_t op = <uint8_t>node.op
    if op == LEAF or not reads_operands(op) or FAULT(b"backward: no leaf was changed"):
        return False
    if op <= LAST_UNARY:
        return written_after(t, node.a, i)
    if op <= LAST_BINARY:
        return written_after(t, node.a, i) or written_after(t, node.argument.pair.b, i)
    for k in range(node.argument.pair.n):
        if written_after(t, first(t, &node, k), i) or written_after(t, second(t, i, &node, k), i):
            return True
    return False


cdef inline bint written_after(Tape *t, uint32_t child, uint32_t i) noexcept nogil:
    return op_at(t, child) == LEAF and has_changed(t, child, i)


cdef int refuse_stale(Tape *t, uint32_t i) except -1:
    """Raise if a partial of node `i` would be computed from a leaf that changed since."""
    if is_stale(t, i):
        raise RuntimeError(f"a leaf used by `{name_of(op_at(t, i))}` was changed after it was used: compute the result again, "
                           "then ask for its gradients")
    return 0


cdef bint has_no_partials(Tape *t, uint32_t i) noexcept:
    return record_at(t, i).op == CUSTOM and record_at(t, i).argument.pair.b == NO_PARTIALS


cdef dict attributes_at(Tape *t, uint32_t i):
    """Return what was written on node `i`."""
    cdef PyObject *handle = t.handle[i]
    while handle != NULL:
        if (<Handle>handle).attributes != NULL:
            return <dict>(<Handle>handle).attributes
        handle = (<Handle>handle).next
    return {}


cdef int refuse_without_partials(Tape *t, uint32_t i) except -1:
    """Raise if nothing says how to pass on the gradient of node `i`."""
    if has_no_partials(t, i) and "_backward" not in attributes_at(t, i) and not FAULT(b"own: there are partials"):
        name = attributes_at(t, i).get("_op", name_of(CUSTOM))
        raise RuntimeError(f"the node `{name}` cannot pass its gradient on: give its partials, Value(data, children, "
                           "local_grads), or set a function that adds to the grad of its children, node._backward = f")
    return 0


cdef int pass_on(Tape *t, uint32_t i) except -1:
    """Add partial * grad of node `i` to the grad of each of its operands."""
    refuse_stale(t, i)
    refuse_without_partials(t, i)
    if op_at(t, i) != LEAF:
        propagate(t, i, 0, operands(t, i))
    return 0


cdef void note_own(Tape *t, uint32_t i, bint own) noexcept:
    """Note that node `i` has a `_backward` of its own now, or none. A search may not be under way if it is a leaf."""
    t.own_backward |= own
    if op_at(t, i) == LEAF:
        t.own_leaves |= own
        if not FAULT(b"own: the search comes to leaves"):
            t.seen[i] = UNSEEN if own else SEEN     # as to a computed node


cdef bint has_own(Tape *t, const Run *run) noexcept:
    """Whether a node of the run may have its own `_backward`, or has no other."""
    cdef uint32_t i
    cdef PyObject *handle
    if op_at(t, run.first) == LEAF or has_no_partials(t, run.first):
        return True
    for i in range(run.first, run.first + run.count):
        handle = t.handle[i]
        while handle != NULL:
            if (<Handle>handle).attributes != NULL:
                return True
            handle = (<Handle>handle).next
    return False


cdef bint any_own(Tape *t, const Run *order, size_t length) noexcept:
    """Whether a node of the order has its own `_backward`, or no other."""
    cdef size_t k
    cdef uint32_t i
    cdef PyObject *handle
    for k in range(length):
        if has_no_partials(t, order[k].first):
            return True
        for i in range(order[k].first, order[k].first + order[k].count):
            handle = t.handle[i]
            while handle != NULL:
                if (<Handle>handle).attributes != NULL and holds_own((<Handle>handle).attributes):
                    return True
                handle = (<Handle>handle).next
    return False


cdef int propagate_own(Tape *t, Run run, uint32_t low, uint32_t high, set done) except -1:
    """As `propagate`, node by node: those with their own `_backward` do what that does. `low`, `high`: of a run of one.

    Of a sum in segments the one that comes first decides for all: where it is called there, the sum is `done`. In between others
    may set or delete it.
    """
    cdef uint32_t i
    for i in range(run.first + run.count - 1, run.first - 1, -1):
        if run.count > 1:
            high = operands(t, i)
        own = None
        if op_at(t, i) <= LAST_BINARY or high == operands(t, i) or FAULT(b"own: once for a sum in segments"):
            own = attributes_at(t, i).get("_backward")
        elif i in done:
            continue
        if own is None:
            refuse_without_partials(t, i)       # another one may have deleted it
            if op_at(t, i) != LEAF:
                propagate(t, i, low, high)
        else:
            if low > 0:
                done.add(i)
            own()
    return 0


cdef int refuse_any_without_partials(Tape *t, const Run *order, size_t length) except -1:
    """As `refuse_without_partials`, of every node of the order."""
    cdef size_t k
    cdef uint32_t i
    for k in range(length):
        for i in range(order[k].first, order[k].first + order[k].count):
            refuse_without_partials(t, i)
    return 0


cdef int refuse_any_stale(Tape *t, const Run *order, size_t length) except -1:
    """Raise if a node of the order is stale. Only nodes older than the last write are looked at."""
    cdef uint32_t last_write = t.write_top[t.writes - 1] if t.writes > 0 else 0
    cdef size_t k
    cdef uint32_t i
    for k in range(length):
        if order[k].first < last_write:
            for i in range(order[k].first, order[k].first + order[k].count):
                refuse_stale(t, i)
    return 0


cdef uint64_t refuse_changed(Tape *t, const Run *order, size_t length, uint64_t changes) except? 0:
    """As `refuse_any_stale`, where other code ran and wrote leaves: there are more changes then. Return how many there are."""
    if changes != t.changes:
        refuse_any_stale(t, order, length)
    return t.changes


cdef int backward(Tape *t, Handle root) except -1:
    """Add d(root)/d(node) to the grad of every node that `root` reaches. The grad of root itself becomes 1."""
    cdef Pass this
    begin(t, &this, root, True)
    try:
        propagate_all(t, root.id, &this)
    finally:
        end(t, &this)
    return 0


cdef int propagate_all(Tape *t, uint32_t root, const Pass *this) except -1:
    cdef size_t k
    cdef size_t work = 0
    cdef uint32_t i
    cdef double g
    cdef uint64_t changes
    cdef double *data
    cdef double *grad
    cdef const Run *order = this.order
    cdef Node room
    cdef const Node *node
    cdef bint own = t.own_backward
    cdef set done = set() if this.split else None
    refuse_any_stale(t, order, this.length)
    if this.plan.length > 0:
        t.grad[root] = 1.0
        return follow(t, this)
    if own:
        refuse_any_without_partials(t, order, this.length)
    data = t.data
    grad = t.grad
    changes = t.changes
    grad[root] = 1.0
    k = this.length
    while k > 0:
        work += order[k - 1].count
        if work >= BETWEEN_SIGNALS:
            work = 0
            PyErr_CheckSignals()    # a handler may make nodes, for which the arrays may move
            data = t.data
            grad = t.grad
            own = t.own_backward    # and set the first `_backward`
            changes = refuse_changed(t, order, k, changes)
        if own and (has_own(t, &order[k - 1]) or (done and order[k - 1].first in done)) and (
                not FAULT(b"own: they are called")):
            i = order[k - 1].first
            propagate_own(t, order[k - 1], this.segment[k - 1].low if this.split else 0,
                          this.segment[k - 1].high if this.split else operands(t, i), done)
            data = t.data           # as after a signal
            grad = t.grad
            k -= 1
            if not FAULT(b"own: what they change"):
                changes = refuse_changed(t, order, k, changes)
            continue
        i = order[k - 1].first
        node = look_at(t, i, &room)
        g = grad[i]
        if order[k - 1].count > 1:
            propagate_run(t, i, order[k - 1].count)
        elif node.op == ADD:        # most nodes of a script are sums and products: without a call
            grad[node.a] += g
            grad[node.argument.pair.b] += g
        elif node.op == MUL:
            grad[node.a] += data[node.argument.pair.b] * g
            grad[node.argument.pair.b] += data[node.a] * g
        elif this.split:
            propagate(t, i, this.segment[k - 1].low, this.segment[k - 1].high)
        else:
            propagate(t, i, 0, node.argument.pair.n)
        k -= 1
    return 0


cdef int follow(Tape *t, const Pass *this) except -1:
    """Go through the plan of a pass."""
    cdef const Task *task = this.plan.tasks
    cdef const Task *leaves = task + this.plan.at_leaves
    cdef const Task *end = task + this.plan.length
    cdef size_t work = 0
    cdef uint64_t changes = t.changes
    while task < end:
        if work >= BETWEEN_SIGNALS:
            work = 0
            PyErr_CheckSignals()
            changes = refuse_changed(t, this.order, this.length, changes)
        if task < leaves:
            task += propagate_computed(t, task, leaves - task, this.plan.pivots, &work)
        else:
            task += propagate_leaves(t, task, end - task, &work)
    return 0


cdef int zero_grad(Tape *t, Handle root) except -1:
    """Set the grad of every node that `root` reaches to 0."""
    cdef Pass this
    cdef size_t k
    cdef uint32_t i, j
    begin(t, &this, root, False)
    t.grad[root.id] = 0.0
    for k in range(this.length):
        for i in range(this.order[k].first, this.order[k].first + this.order[k].count):
            for j in range(operand_count(t, i)):
                t.grad[operand(t, i, j)] = 0.0
    end(t, &this)
    return 0


cdef int begin(Tape *t, Pass *this, Handle root, bint planned) except -1:
    """Start a pass: order the nodes below `root`, and plan what to do. Until its end ids stay as they are, though other code may
    run in the middle.

    Before, they do not: the id of `root` may become another one while this thread waits for its turn.
    """
    global searching, searcher, lent, latest, spare
    if searching:
        wait()
    searching = True
    searcher = PyThread_get_thread_ident()
    if lent:                            # the arrays of the last search are those of a pass that is still under way
        search.order = NULL
        search.segment = NULL
        search.room = search.segment_room = search.length = search.depth = 0
        lent = False
    t.fixed += 1
    this.plan = spare
    memset(&spare, 0, sizeof(Plan))
    this.plan.length = 0
    this.split = False
    try:
        if t.shown:
            look_at_shown(t)
        this.length = 0 if t.own_leaves else use_plan(t, root.id, &this.plan)
        if this.length > 0 and t.own_backward and any_own(t, search.order, this.length):
            this.length = this.plan.length = 0
        if this.length == 0:
            this.split = arrange(t, root.id)
            this.length = search.length
            forget(t)
            if planned and not this.split and not t.own_leaves and (
                    not (t.own_backward and any_own(t, search.order, this.length))) and (
                    schedule(t, search.order, this.length, &this.plan)):
                keep_plan(t, root.id, search.order, this.length, &this.plan)
        if latest != NULL:
            refuse_common(t, search.order, this.length)
    except BaseException:
        forget(t)
        return_plan(&this.plan)
        t.fixed -= 1
        free_large()
        raise
    finally:
        searching = False
    this.order = search.order
    this.segment = search.segment
    this.thread = searcher
    this.before = latest
    latest = this
    lent = True
    return 0


cdef void look_at_shown(Tape *t) noexcept:
    """Note where a `_backward` was written into, or taken out of, the `__dict__` of a Value, past its setter. As long as somebody
    holds one that may happen again.
    """
    cdef uint32_t i
    cdef PyObject *handle
    t.shown = False
    for i in range(1, t.top):
        handle = t.handle[i]
        while handle != NULL:
            if (<Handle>handle).attributes != NULL:
                t.shown |= references((<Handle>handle).attributes) > 1
                note_own(t, i, holds_own((<Handle>handle).attributes))
            handle = (<Handle>handle).next


cdef bint holds_own(PyObject *attributes) noexcept:
    """Whether a `_backward` is among these. No key compares itself, which might be any code."""
    cdef Py_ssize_t i = 0
    cdef PyObject *key
    while PyDict_Next(<object>attributes, &i, &key, NULL):
        if type(<object>key) is str and <str>key == "_backward":
            return True
    return False

cdef void return_plan(Plan *plan) noexcept:
    """Keep the room of a plan for the next one, or free it."""
    global spare
    if spare.tasks == NULL:
        free(spare.pivots)
        spare = plan[0]
    else:
        free(plan.tasks)
        free(plan.pivots)


cdef void end(Tape *t, Pass *this) noexcept:
    """End a pass, complete or interrupted."""
    global lent, latest
    cdef Pass **link = &latest
    while link[0] != this:
        link = &link[0].before
    link[0] = this.before
    t.fixed -= 1
    return_plan(&this.plan)
    if lent and search.order == this.order:
        lent = False
        free_large()
    else:
        free(this.order)
        free(this.segment)


cdef int wait() except -1:
    """Wait until the search of another thread has ended. It let this one run since a signal had come."""
    while searching:
        if searcher == PyThread_get_thread_ident():
            raise RuntimeError("a signal handler cannot call backward() or zero_grad(), nor change the _backward of a leaf, "
                               "while one is still looking for its order: set a flag there, and do it afterwards")
        sleep(0.0001)
    return 0


cdef int refuse_common(Tape *t, const Run *order, size_t length) except -1:
    """Raise if a node of `order` is also one of another pass that is under way."""
    cdef const Pass *other = latest
    cdef bint common = False
    cdef size_t k
    while other != NULL:
        mark_nodes(t, other.order, other.length, LIVE)
        for k in range(length):
            common |= has_mark(t, &order[k])
        mark_nodes(t, other.order, other.length, 0)
        other = other.before
    if common and not FAULT(b"own: passes have no nodes in common"):
        raise RuntimeError("another backward() is in the middle of a graph that shares computed nodes with this one")
    return 0


cdef bint has_mark(Tape *t, const Run *run) noexcept:
    cdef uint32_t i
    for i in range(run.first, run.first + run.count):
        if t.seen[i] & LIVE:
            return True
    return False


cdef void mark_nodes(Tape *t, const Run *order, size_t length, uint8_t mark) noexcept:
    """Set the mark LIVE of these nodes, or none (0)."""
    cdef size_t k
    cdef uint32_t i
    for k in range(length):
        for i in range(order[k].first, order[k].first + order[k].count):
            t.seen[i] = (t.seen[i] & ~<uint8_t>LIVE) | mark


def forget_other_threads():
    """In a child process: end what the threads that it has not were in the middle of."""
    global searching, latest
    cdef unsigned long this = PyThread_get_thread_ident()
    cdef Pass **link = &latest
    if searching and searcher != this:
        forget(tape)
        tape.fixed -= 1
        searching = False
    while link[0] != NULL:              # their arrays are left to the memory of the parent, which has them still
        if link[0].thread == this:
            link = &link[0].before
        else:
            link[0] = link[0].before
            tape.fixed -= 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_other_threads)
