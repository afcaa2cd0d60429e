"""A graph as buffers: which nodes a root reaches, in the order of backward, and what each of them is."""

from cpython cimport array
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from microgpt cimport _graph
from microgpt._matrix cimport Matrix, Rows, as_rows
from microgpt._ops cimport name_of, operand, operand_count, partial, partial_a, partial_b
from microgpt._order cimport first, second
from microgpt._reach cimport Found, allocate, release, search
from microgpt._runs cimport Operands, at, run
from microgpt._tape cimport (
    ADD_CONSTANT, CONSTANT_ATAN2, CONSTANT_POW, CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, LAST_BINARY, LAST_UNARY, LEAF, SUM,
    SUM_LISTED, Node, Tape, look_at, partials, tape
)
from microgpt._value cimport Value, node as id_of, written_on
from microgpt._vector cimport Vector, as_vector, elements, new_vector, room_for_ids, settle_listed

from array import array as new_array

from microgpt._ops import NAMES

cdef array.array BYTES = new_array("B")
cdef array.array DOUBLES = new_array("d")
cdef array.array IDS = new_array("I")
cdef array.array SIZES = new_array("Q")
cdef array.array PLACES = new_array("q")

cdef enum:
    STEP_WORDS = 3                      # of a step: node, low, high


# What tells the ops apart that share a name: with a number as second operand, _k, or as first, k_.
KINDS = tuple([
    f"k_{name}" if code in (CONSTANT_POW, CONSTANT_ATAN2) else f"{name}_k" if ADD_CONSTANT <= code <= LAST_UNARY else name
    for code, name in enumerate(NAMES)
])


cdef array.array numbers(array.array like, size_t n, bint zero):
    return array.clone(like, n, zero)


cdef object shown(array.array given):
    """Return what reads `given`, and does not write."""
    return memoryview(given).toreadonly()


cdef class Snapshot:
    """The nodes below a root, as they were when it was made. Index 0 is the root, each node comes before its children.

    Buffers are read-only and of one number for each node, edge (node and child), or step.
    """

    cdef Vector _nodes
    cdef array.array _ops
    cdef array.array _data
    cdef array.array _grad
    cdef array.array _constants
    cdef array.array _first_child
    cdef array.array _children
    cdef array.array _steps
    cdef array.array _own_partials
    cdef object _partials
    cdef object _uses
    cdef array.array _first_use
    cdef array.array _tensor            # of each node: 1 + number of the tensor it is an element of, 0 for none
    cdef array.array _offset            # and which one
    cdef set _own                       # indices of nodes with a `_backward` of their own
    cdef readonly size_t nbytes         # that the nodes take on the tape

    def __init__(self, Value root):
        cdef Found found
        cdef uint32_t id
        memset(&found, 0, sizeof(Found))
        if root is None:
            raise TypeError("a graph is that of a Value, got None")
        if self._nodes is not None:
            raise TypeError("a graph is made once: __init__ was called again")
        id = id_of(root)
        tape.fixed += 1                 # ids are in use: other code may run where memory is asked for, and where signals come
        try:
            allocate(&found, <size_t>id + 1)
            search(&found, id)
            self.fill(&found, root)
        finally:
            release(&found)
            tape.fixed -= 1

    cdef int fill(self, Found *found, Value root) except -1:
        cdef uint32_t n = found.nodes
        cdef Vector nodes = new_vector()
        cdef uint32_t *ids
        cdef uint32_t i
        self._ops = numbers(BYTES, n, False)
        self._data = numbers(DOUBLES, n, False)
        self._grad = numbers(DOUBLES, n, True)
        self._constants = numbers(DOUBLES, n, False)
        self._first_child = numbers(SIZES, <size_t>n + 1, False)
        self._children = numbers(IDS, found.edges, False)
        self._steps = numbers(IDS, STEP_WORDS * found.length, False)
        self._own_partials = numbers(DOUBLES, found.own_partials, False)
        self._own = set()
        self.nbytes = n * <size_t>(2 * sizeof(double) + sizeof(uint8_t) + sizeof(uint32_t) + sizeof(void *)) + (
            found.records * sizeof(Node) + found.words * sizeof(uint32_t))
        refuse_stale(found)
        if tape.own_backward or tape.shown or found.own_partials > 0:
            self.find_own(found)
        ids = room_for_ids(nodes, n)
        for i in range(n):
            ids[i] = found.order[n - 1 - i]
        fill_nodes(self, found)
        fill_children(self, found)
        settle_listed(nodes, n)
        self._nodes = nodes
        if self._own:
            self.grads_by_backward(found, root)
        else:
            add_up(self, found)
        fill_steps(self, found)
        return 0

    cdef int find_own(self, Found *found) except -1:
        """Note the nodes that backward() itself must look at: with a `_backward` of their own, or without any way."""
        cdef uint32_t k, id
        for k in range(found.nodes):
            id = found.order[k]
            if _graph.has_no_partials(tape, id):
                self._own.add(found.nodes - 1 - k)
            elif tape.handle[id] != NULL:
                written = written_on(id)
                if written is not None and "_backward" in written:
                    self._own.add(found.nodes - 1 - k)

    cdef int grads_by_backward(self, Found *found, Value root) except -1:
        """Let backward() compute the gradients, since some nodes do that in ways of their own, and take them back."""
        cdef array.array before = numbers(DOUBLES, found.nodes, False)
        cdef uint32_t n = found.nodes
        cdef uint32_t i
        for i in range(n):
            before.data.as_doubles[i] = tape.grad[found.order[i]]
            tape.grad[found.order[i]] = 0.0
        try:
            _graph.backward(tape, root)
            for i in range(n):
                self._grad.data.as_doubles[n - 1 - i] = tape.grad[found.order[i]]
        finally:
            for i in range(n):
                tape.grad[found.order[i]] = before.data.as_doubles[i]
        return 0

    cdef Vector made(self):
        """Return the nodes. RuntimeError where a subclass has not called __init__."""
        if self._nodes is None:
            raise RuntimeError(f"this {type(self).__name__} was never made: __init__ was not called")
        return self._nodes

    def __len__(self):
        return len(self.made())

    def __iter__(self):
        return iter(self.made())

    def __getitem__(self, index):
        """Return the Value of node `index`."""
        if isinstance(index, slice):
            raise TypeError("a node is chosen by its index; graph.nodes[i:j] is the Vector of several")
        return self.made()[index]

    @property
    def nodes(self):
        """A Vector of all nodes. As long as it is there, so is the graph."""
        return self._nodes

    @property
    def ops(self):
        """Number of the op of each node, unsigned bytes; `op(i)` is its name."""
        return shown(self._ops)

    @property
    def data(self):
        """Data of each node, doubles."""
        return shown(self._data)

    @property
    def grad(self):
        """d(root)/d(node) of each node, doubles, computed apart: no node's own grad is changed or asked."""
        return shown(self._grad)

    @property
    def constants(self):
        """The number in each op, such as the 2 of x ** 2; nan where there is none. Doubles."""
        return shown(self._constants)

    @property
    def first_child(self):
        """The edges of node i are [first_child[i], first_child[i + 1]), 64 bits each."""
        return shown(self._first_child)

    @property
    def children(self):
        """Index of the child of each edge, in constructor order, for a dot w[0], x[0], w[1], x[1], ...; 32 bits each."""
        return shown(self._children)

    @property
    def steps(self):
        """What backward() does in turn, rows of three 32-bit numbers: node, low, high.

        Of a sum the operands [low, high) get their contributions, of a dot as many pairs, the last one first; of any other node
        all operands do. A sum is in several rows where what is below one of its terms comes between that and the one before.
        """
        return shown(self._steps).cast("B").cast("I", (len(self._steps) // STEP_WORDS, STEP_WORDS)) if len(self._steps) else (
            shown(self._steps))

    @property
    def partials(self):
        """d(node)/d(child) of each edge, doubles; nan for a node that passes its gradient on by a `_backward` of its own."""
        if self._partials is None:
            self._partials = all_partials(self)
        return shown(self._partials)

    @property
    def first_use(self):
        """The uses of node i are [first_use[i], first_use[i + 1]), 64 bits each."""
        self.find_uses()
        return shown(self._first_use)

    @property
    def uses(self):
        """The edges that lead to each node, in the order in which backward() adds their contributions; 64 bits each."""
        self.find_uses()
        return shown(self._uses)

    cdef int find_uses(self) except -1:
        if self._uses is None:
            all_uses(self)
        return 0

    def parent(self, size_t edge):
        """Return the index of the node that an edge belongs to."""
        cdef size_t low = 0
        cdef size_t high = len(self._ops)
        cdef size_t middle
        cdef const uint64_t *starts = <const uint64_t *>self._first_child.data.as_voidptr
        if edge >= <size_t>len(self._children):
            raise IndexError(f"edge {edge} is out of range for a graph of {len(self._children)} edges")
        while high - low > 1:           # the last node whose edges begin at this one or before: leaves have none
            middle = (low + high) // 2
            if starts[middle] <= edge:
                low = middle
            else:
                high = middle
        return low

    def op(self, index):
        """Return the name of the op of node `index`, "leaf" for a variable."""
        return name_of(self._ops[index])

    def kind(self, index):
        """Return the name of the op of node `index`, and whether there is a number in it: pow_k for x ** 2, k_pow for 2 ** x."""
        return KINDS[self._ops[index]]

    def depths(self):
        """Return how far each node is from the root, along the longest way, 32 bits each."""
        cdef uint32_t n = <uint32_t>len(self._ops)
        cdef array.array result = numbers(IDS, n, True)
        cdef uint32_t *depth = result.data.as_uints
        cdef const uint64_t *start = <const uint64_t *>self._first_child.data.as_voidptr
        cdef const uint32_t *child = self._children.data.as_uints
        cdef uint64_t e
        cdef uint32_t i
        for i in range(n):
            for e in range(start[i], start[i + 1]):
                depth[child[e]] = max(depth[child[e]], depth[i] + 1)
        return shown(result)

    def op_counts(self):
        """Return how many nodes there are of each op, a list by its number."""
        cdef size_t[256] count
        cdef size_t i
        for i in range(256):
            count[i] = 0
        for i in range(<size_t>len(self._ops)):
            count[self._ops.data.as_uchars[i]] += 1
        return [count[i] for i in range(256)]

    def index(self, Value value not None):
        """Return the index of the node of `value`. ValueError if the root does not reach it."""
        cdef uint32_t id = id_of(value)
        cdef Operands x = elements(self.made(), 0)
        cdef uint32_t i
        for i in range(self._nodes.n):
            if at(x, i) == id:
                return i
        raise ValueError(f"the graph does not reach {value!r}")

    def indices(self, values):
        """Return the index of each element of a Value, Vector, Matrix or Rows, row after row, -1 for what is not reached.

        64 bits each. Cost: that of one look at each node of the graph, and one at each element.
        """
        cdef uint32_t count, i
        cdef array.array result
        cdef uint32_t *index
        check_elements(values)
        result = numbers(PLACES, elements_count(values), False)
        index = self.by_id()
        count = elements_count(values)
        for i in range(count):
            (<int64_t *>result.data.as_voidptr)[i] = <int64_t>self.index_of(index, element(values, i)) - 1
        free(index)
        return shown(result)

    def name_tensors(self, tensors):
        """Let `tensor` and `offset` tell of which of these Values, Vectors, Matrices and Rows each node is an element.

        Where it is one of several, of the first.
        """
        cdef list given = list(tensors)
        cdef array.array tensor = numbers(IDS, len(self._ops), True)
        cdef array.array offset = numbers(IDS, len(self._ops), True)
        cdef uint32_t *index
        cdef uint32_t number = 0
        cdef uint32_t i, place
        for values in given:
            check_elements(values)
        index = self.by_id()
        for values in given:
            number += 1
            for i in range(elements_count(values)):
                place = self.index_of(index, element(values, i))
                if place > 0 and tensor.data.as_uints[place - 1] == 0:
                    tensor.data.as_uints[place - 1] = number
                    offset.data.as_uints[place - 1] = i
        free(index)
        self._tensor = tensor
        self._offset = offset

    @property
    def tensor(self):
        """Of each node 1 + the number of its tensor, 0 for none; 32 bits each."""
        return shown(self._tensor)

    @property
    def offset(self):
        """Of each node which element of its tensor it is; 32 bits each."""
        return shown(self._offset)

    cdef uint32_t *by_id(self) except NULL:
        """Return 1 + the index of each node by its id, 0 for others, up to the root's. Owner: the caller."""
        cdef Operands x = elements(self.made(), 0)
        cdef uint32_t *index = <uint32_t *>calloc(<size_t>at(x, 0) + 1, sizeof(uint32_t))
        cdef uint32_t i
        if index == NULL:
            raise MemoryError(f"no room to find {self._nodes.n} nodes by their values")
        for i in range(self._nodes.n):
            index[at(x, i)] = i + 1
        return index

    cdef uint32_t index_of(self, const uint32_t *index, uint32_t id) noexcept:
        return index[id] if id <= at(elements(self._nodes, 0), 0) else 0


cdef int check_elements(object values) except -1:
    """Raise TypeError unless `values` is a Value, Vector, Matrix or Rows."""
    if isinstance(values, Value):
        id_of(<Value>values)
    elif isinstance(values, Vector):
        as_vector(values)
    elif isinstance(values, Rows):
        as_rows(<Rows>values)
    elif not isinstance(values, Matrix):
        raise TypeError(f"a Value, Vector, Matrix or Rows needed, got {type(values).__name__}")
    return 0


cdef uint32_t elements_count(object values) noexcept:
    if isinstance(values, Value):
        return 1
    if isinstance(values, Vector):
        return (<Vector>values).n
    if isinstance(values, Rows):
        return (<Rows>values).vector.n
    return (<Matrix>values).rows * (<Matrix>values).columns


cdef uint32_t element(object values, uint32_t i) noexcept:
    """The id of an element."""
    if isinstance(values, Value):
        return (<Value>values).id
    if isinstance(values, Vector):
        return at(elements(<Vector>values, 0), i)
    if isinstance(values, Rows):
        return at(elements((<Rows>values).vector, 0), i)
    return at(run((<Matrix>values).start), i)


cdef int refuse_stale(Found *found) except -1:
    """As backward() does. Only nodes older than the last write of a leaf are looked at."""
    cdef uint32_t last_write = tape.write_top[tape.writes - 1] if tape.writes > 0 else 0
    cdef uint32_t k
    for k in range(found.nodes):
        if found.order[k] < last_write:
            _graph.refuse_stale(tape, found.order[k])
    return 0


cdef void fill_nodes(Snapshot graph, const Found *found) noexcept:
    cdef Tape *t = tape
    cdef uint32_t n = found.nodes
    cdef uint8_t *ops = graph._ops.data.as_uchars
    cdef double *data = graph._data.data.as_doubles
    cdef double *constants = graph._constants.data.as_doubles
    cdef Node room
    cdef const Node *node
    cdef uint32_t i, id
    for i in range(n):
        id = found.order[n - 1 - i]
        node = look_at(t, id, &room)
        ops[i] = node.op
        data[i] = t.data[id]
        constants[i] = node.argument.constant if ADD_CONSTANT <= node.op <= LAST_UNARY else NAN


cdef void fill_children(Snapshot graph, const Found *found) noexcept:
    cdef Tape *t = tape
    cdef uint32_t n = found.nodes
    cdef uint64_t *start = <uint64_t *>graph._first_child.data.as_voidptr
    cdef uint32_t *child = graph._children.data.as_uints
    cdef double *own = graph._own_partials.data.as_doubles
    cdef const uint32_t *place = found.place
    cdef Node room
    cdef const Node *node
    cdef uint64_t e = 0
    cdef uint32_t i, k, id, count
    for i in range(n):
        id = found.order[n - 1 - i]
        node = look_at(t, id, &room)
        start[i] = e
        if node.op == LEAF:
            continue
        if node.op == DOT:
            for k in range(node.argument.pair.n):
                child[e + 2 * k] = n - place[node.a + k]
                child[e + 2 * k + 1] = n - place[node.argument.pair.b + k]
            e += 2 * <uint64_t>node.argument.pair.n
            continue
        count = operand_count(t, id)
        for k in range(count):
            child[e + k] = n - place[operand(t, id, k)]
        e += count
        if node.op == CUSTOM:
            for k in range(count):
                own[0] = NAN if _graph.has_no_partials(t, id) else partials(t, node.a, count)[k]
                own += 1
    start[n] = e


cdef void add_up(Snapshot graph, const Found *found) noexcept:
    """Compute the gradients, each contribution in the turn that it has in backward()."""
    cdef Tape *t = tape
    cdef double *grad = graph._grad.data.as_doubles
    cdef const uint32_t *place = found.place
    cdef const double *data = t.data
    cdef Node room
    cdef const Node *node
    cdef uint32_t n = found.nodes
    cdef uint32_t k, a, b, id
    cdef double g
    cdef size_t s
    grad[0] = 1.0
    for s in range(found.length, 0, -1):
        id = found.steps[s - 1].id
        node = look_at(t, id, &room)
        g = grad[n - place[id]]
        if node.op <= LAST_BINARY:
            grad[n - place[node.a]] += partial(t, id, 0) * g
            if node.op > LAST_UNARY:
                grad[n - place[node.argument.pair.b]] += partial(t, id, 1) * g
        elif node.op == CUSTOM:
            for k in range(node.argument.pair.n):
                grad[n - place[t.pool[node.a + k]]] += partials(t, node.a, node.argument.pair.n)[k] * g
        elif node.op == SUM or node.op == SUM_LISTED:
            for k in range(found.steps[s - 1].high, found.steps[s - 1].low, -1):
                grad[n - place[first(t, node, k - 1)]] += g
        else:
            for k in range(found.steps[s - 1].high, found.steps[s - 1].low, -1):
                a = first(t, node, k - 1)
                b = second(t, id, node, k - 1)
                grad[n - place[a]] += data[b] * g
                grad[n - place[b]] += data[a] * g


cdef void fill_steps(Snapshot graph, const Found *found) noexcept:
    cdef uint32_t *to = graph._steps.data.as_uints
    cdef size_t s
    for s in range(found.length, 0, -1):
        to[0] = found.nodes - found.place[found.steps[s - 1].id]
        to[1] = found.steps[s - 1].low
        to[2] = found.steps[s - 1].high
        to += STEP_WORDS


cdef array.array all_partials(Snapshot graph):
    cdef array.array result = numbers(DOUBLES, len(graph._children), False)
    cdef double *to = result.data.as_doubles
    cdef const uint64_t *start = <const uint64_t *>graph._first_child.data.as_voidptr
    cdef const uint32_t *child = graph._children.data.as_uints
    cdef const double *data = graph._data.data.as_doubles
    cdef const double *own = graph._own_partials.data.as_doubles
    cdef uint8_t op
    cdef uint32_t i
    cdef uint64_t e
    for i in range(<uint32_t>len(graph._ops)):
        op = graph._ops.data.as_uchars[i]
        e = start[i]
        if op == LEAF:
            continue
        if op <= LAST_UNARY:
            to[e] = partial_a(op, data[child[e]], graph._constants.data.as_doubles[i], data[i])
        elif op <= LAST_BINARY:
            to[e] = partial_a(op, data[child[e]], data[child[e + 1]], data[i])
            to[e + 1] = partial_b(op, data[child[e]], data[child[e + 1]], data[i])
        else:
            for e in range(start[i], start[i + 1]):
                if op == CUSTOM:
                    to[e] = own[0]
                    own += 1
                else:
                    to[e] = 1.0 if op == SUM or op == SUM_LISTED else data[child[start[i] + ((e - start[i]) ^ 1)]]
    for i in graph._own:
        for e in range(start[i], start[i + 1]):
            to[e] = NAN
    return result


cdef int all_uses(Snapshot graph) except -1:
    """Count the edges to each node, then put them where they belong, step by step."""
    cdef uint32_t n = <uint32_t>len(graph._ops)
    cdef array.array first_use = numbers(SIZES, <size_t>n + 1, True)
    cdef array.array uses = numbers(SIZES, len(graph._children), False)
    cdef array.array next_use = numbers(SIZES, <size_t>n + 1, False)
    cdef uint64_t *begin = <uint64_t *>first_use.data.as_voidptr
    cdef uint64_t *free_place = <uint64_t *>next_use.data.as_voidptr
    cdef uint64_t *use = <uint64_t *>uses.data.as_voidptr
    cdef const uint64_t *start = <const uint64_t *>graph._first_child.data.as_voidptr
    cdef const uint32_t *child = graph._children.data.as_uints
    cdef const uint32_t *step = graph._steps.data.as_uints
    cdef uint64_t e
    cdef uint32_t i, k, width
    cdef uint8_t op
    cdef size_t _step
    for e in range(<size_t>len(graph._children)):
        begin[child[e] + 1] += 1
    for i in range(n):
        begin[i + 1] += begin[i]
        free_place[i] = begin[i]
    for _step in range(<size_t>len(graph._steps) // STEP_WORDS):
        i = step[0]
        op = graph._ops.data.as_uchars[i]
        width = 2 if op == DOT or op == DOT_LISTED or op == DOT_STRIDED else 1
        if op <= LAST_BINARY or op == CUSTOM:
            for e in range(start[i], start[i + 1]):
                use[free_place[child[e]]] = e
                free_place[child[e]] += 1
        else:
            for k in range(step[2], step[1], -1):
                for e in range(start[i] + (k - 1) * width, start[i] + k * width):
                    use[free_place[child[e]]] = e
                    free_place[child[e]] += 1
        step += STEP_WORDS
    graph._first_use = first_use
    graph._uses = uses
    return 0
