"""Record: copy what the outputs reach off the tape."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from microgpt._matrix cimport Matrix, Rows, as_rows
from microgpt._ops cimport name_of, operand, operand_count
from microgpt._tape cimport (
    ADD, ADD_CONSTANT, CUSTOM, DOT, DOT_LISTED, DOT_STRIDED, LAST_BINARY, LAST_UNARY, LEAF, MUL, SUM, SUM_LISTED, WHERE,
    Argument, Shift, Tape, node_at, op_at, tape
)
from microgpt._value cimport Value, node, written_on
from microgpt._vector cimport Vector, as_vector, elements
from microgpt._runs cimport at

from array import array

cdef enum:
    MOST_NODES = 1 << 30


cdef class Graph:
    def __dealloc__(self):
        free(self.op)
        free(self.a)
        free(self.b)
        free(self.k)
        free(self.constant)
        free(self.output)

    def __reduce__(self):
        return restore_graph, (self.state(),)

    def __len__(self):
        """Number of computed nodes."""
        return self.nodes - self.leaves

    @property
    def sizes(self):
        """Numbers of inputs, parameters and outputs."""
        return self.inputs, self.parameters, self.outputs

    @property
    def nbytes(self):
        """Bytes of its arrays."""
        return (self.nodes - self.leaves) * 17 + self.constants * 8 + self.outputs * 4

    def op_counts(self):
        """Return how many nodes there are of each op."""
        cdef dict counts = {}
        cdef uint32_t i
        cdef str name
        for i in range(self.nodes - self.leaves):
            name = "max" if self.op[i] == LARGER else "add" if self.op[i] == SHIFT else name_of(self.op[i])
            counts[name] = counts.get(name, 0) + 1
        return counts

    def state(self):
        """Return all that it is as arrays of doubles, by name, and its sizes."""
        cdef uint32_t n = self.nodes - self.leaves
        cdef uint32_t i
        numbers = {
            name: array("d") for name in ("op", "a", "b", "k", "constant", "output", "parameter")
        }
        for i in range(n):
            numbers["op"].append(self.op[i])
            numbers["a"].append(self.a[i])
            numbers["b"].append(self.b[i])
            numbers["k"].append(self.k[i])
        for i in range(self.constants):
            numbers["constant"].append(self.constant[i])
        for i in range(self.outputs):
            numbers["output"].append(self.output[i])
        numbers["parameter"].extend(self.parameter_data)
        return self.inputs, numbers

    cdef int make_room(self) except -1:
        """Make room for the `nodes`, `constants` and `outputs` that are set."""
        cdef size_t n = max(self.nodes - self.leaves, <uint32_t>1)
        self.op = <uint8_t *>malloc(n)
        self.a = <uint32_t *>malloc(n * sizeof(uint32_t))
        self.b = <uint32_t *>malloc(n * sizeof(uint32_t))
        self.k = <double *>malloc(n * sizeof(double))
        self.constant = <double *>malloc(max(self.constants, <uint32_t>1) * sizeof(double))
        self.output = <uint32_t *>malloc(max(self.outputs, <uint32_t>1) * sizeof(uint32_t))
        if self.op == NULL or self.a == NULL or self.b == NULL or self.k == NULL or (
                self.constant == NULL or self.output == NULL):
            raise MemoryError(f"no room for a program of {n} nodes")
        return 0


cdef uint32_t whole(double x, double below, str what) except? 0:
    """Return a number of a stored graph. ValueError unless it is whole and below a bound."""
    if not 0.0 <= x < below or x != <double><uint32_t>x:
        raise ValueError(f"{what} must be a whole number below {below:.0f}, it is {x!r}")
    return <uint32_t>x


def restore_graph(state):
    """Return the Graph of a state. ValueError if it makes no sense."""
    cdef Graph g = Graph.__new__(Graph)
    cdef uint32_t i, n
    cdef uint8_t op
    inputs, numbers = state
    columns = [numbers[name] for name in ("op", "a", "b", "k")]
    n = <uint32_t>whole(len(columns[0]), MOST_NODES, "the number of nodes")
    if any(len(column) != n for column in columns):
        raise ValueError("the columns of its nodes are not of one length")
    g.inputs = whole(inputs, MOST_NODES, "the number of inputs")
    g.parameters = whole(len(numbers["parameter"]), MOST_NODES, "the number of parameters")
    g.constants = whole(len(numbers["constant"]), MOST_NODES, "the number of constants")
    g.outputs = whole(len(numbers["output"]), MOST_NODES, "the number of outputs")
    g.leaves = whole(<double>g.inputs + g.parameters + g.constants, MOST_NODES, "the number of leaves")
    g.nodes = whole(<double>g.leaves + n, MOST_NODES, "the number of nodes")
    if g.inputs == 0 or g.outputs == 0:
        raise ValueError("it has no input or no output")
    g.make_room()
    g.parameter_data = list(numbers["parameter"])
    for i in range(g.constants):
        g.constant[i] = numbers["constant"][i]
    g.nodes = g.leaves
    for op_number, a, b, k in zip(*columns):
        op = <uint8_t>whole(op_number, SHIFT + 1, "an op")
        if op == LEAF or op == WHERE or LAST_BINARY < op < LARGER:
            raise ValueError(f"an op must be one of numbers, it is {op}")
        put_node(g, op, whole(a, g.nodes, "an operand"), whole(b, g.nodes, "an operand"), k)
    for i in range(g.outputs):
        g.output[i] = whole(numbers["output"][i], g.nodes, "an output")
    refuse_stray_maxima(g)
    return g


cdef int refuse_stray_maxima(Graph g) except -1:
    """A maximum, which has no gradient, belongs to a shift."""
    cdef uint32_t i
    for i in range(g.nodes - g.leaves):
        if is_maximum(g, g.b[i]) and g.op[i] != SHIFT and g.op[i] > LAST_UNARY or (
                is_maximum(g, g.a[i]) and g.op[i] != LARGER):
            raise ValueError("a maximum without a softmax makes no sense")
    for i in range(g.outputs):
        if is_maximum(g, g.output[i]):
            raise ValueError("a maximum without a softmax makes no sense")
    return 0


cdef bint is_maximum(Graph g, uint32_t i) noexcept:
    return i >= g.leaves and g.op[i - g.leaves] == LARGER


cdef int list_ids(object x, str what, list ids) except -1:
    """Append the ids of all nodes of a Value, Vector, Matrix, Rows or list of these."""
    cdef Vector v
    cdef Matrix m
    cdef uint32_t i
    if isinstance(x, Value):
        ids.append(node(<Value>x))
    elif isinstance(x, (Vector, Rows)):
        v = as_vector(x) if isinstance(x, Vector) else as_rows(<Rows>x).vector
        for i in range(v.n):
            ids.append(at(elements(v, 0), i))
    elif isinstance(x, Matrix):
        m = <Matrix>x
        for i in range(m.rows * m.columns):
            ids.append(m.start + i)
    elif isinstance(x, (list, tuple)):
        for item in x:
            list_ids(item, what, ids)
    else:
        raise TypeError(f"{what} need to be Values, Vectors, Matrices, Rows or lists of them, got {type(x).__name__}")
    return 0


cdef int refuse(Tape *t, uint32_t i) except -1:
    """Raise for a node whose value or gradient a program cannot find again."""
    cdef dict written = written_on(i) if t.handle[i] != NULL else None
    if written is not None and "_backward" in written:
        raise ValueError(f"a node (`{name_of(op_at(t, i))}`) with a _backward of its own cannot be recorded")
    if op_at(t, i) == CUSTOM:
        name = "custom" if written is None else written.get("_op", "custom")
        raise ValueError(f"a node with partials of its own (`{name}`) cannot be recorded: they are numbers, right for these "
                         "inputs only; write it with microgpt's ops")
    if op_at(t, i) == WHERE:
        raise ValueError("a node of where() cannot be recorded: it does not know its condition, the choice would be the same for "
                         "all inputs; write it with minimum, maximum, relu or abs")
    return 0


cdef Shift *shift_of(Tape *t, uint32_t i) except? NULL:
    """Return the shift that node `i` is of, NULL if it is none's."""
    cdef size_t low = 0
    cdef size_t high = t.shifts
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if t.shift[middle].first + t.shift[middle].count <= i:
            low = middle + 1
        else:
            high = middle
    if low == t.shifts or t.shift[low].first > i:
        return NULL
    if t.shift[low].count != t.shift[low].size:
        raise ValueError("a part of a softmax whose other logits are gone cannot be recorded: keep its result alive")
    return &t.shift[low]


cdef size_t links(Tape *t, uint32_t i) noexcept:
    """Return how many nodes of the reference node `i` is."""
    cdef uint32_t op = op_at(t, i)
    cdef size_t n = node_at(t, i).argument.pair.n
    if op <= LAST_BINARY:
        return 1
    return n if op == SUM or op == SUM_LISTED else 2 * n


def record_graph(outputs, inputs, parameters):
    """Return the Graph of `outputs`, and how many of them there are, None for one that is no list.

    Errors: TypeError for what is no Value or list of them; ValueError for inputs that are computed or given twice, and for nodes
    that cannot be recorded.
    Cost: proportional to the nodes on the tape up to the last output.
    """
    cdef Tape *t = tape
    cdef list output_ids = []
    cdef list leaf_ids = []
    cdef list parameter_ids = []
    cdef Graph g = Graph.__new__(Graph)
    cdef uint8_t *reached = NULL    # marks; freed below, as the next
    cdef uint32_t *new_id = NULL    # of what is reached: the node of the graph
    cdef uint32_t top = 0
    cdef uint32_t i
    t.fixed += 1                    # the interpreter may run any code between two of its instructions: ids stay as they are
    try:
        list_ids(outputs, "outputs", output_ids)
        list_ids(inputs, "inputs", leaf_ids)
        list_ids(parameters, "parameters", parameter_ids)
        if not output_ids:
            raise ValueError("a program needs at least one output, got none")
        if not leaf_ids:
            raise ValueError("a program needs at least one input, got none")
        g.inputs = <uint32_t>len(leaf_ids)
        g.parameters = <uint32_t>len(parameter_ids)
        g.outputs = <uint32_t>len(output_ids)
        leaf_ids.extend(parameter_ids)
        g.parameter_data = []
        for i in parameter_ids:
            g.parameter_data.append(t.data[i])
        top = max(max(output_ids), max(leaf_ids))
        reached = <uint8_t *>calloc(top + <size_t>1, 1)
        new_id = <uint32_t *>malloc((top + <size_t>1) * sizeof(uint32_t))
        if reached == NULL or new_id == NULL:
            raise MemoryError(f"no room to record from {top} nodes")
        for i in leaf_ids:
            if op_at(t, i) != LEAF:
                made_by = name_of(op_at(t, i))
                raise ValueError(f"inputs and parameters need to be leaves, got the result of `{made_by}`")
            if reached[i]:
                raise ValueError("inputs and parameters need to be different leaves, got one twice")
            reached[i] = 1
        for i in output_ids:
            reached[i] = 1
        count_reached(t, g, reached, top)
        g.make_room()
        g.nodes = 0
        for i in leaf_ids:
            new_id[i] = g.nodes
            reached[i] = 0
            g.nodes += 1
        copy_reached(t, g, reached, new_id, top)
        for i in range(g.outputs):
            g.output[i] = new_id[<uint32_t>output_ids[i]]
    finally:
        t.fixed -= 1
        free(reached)
        free(new_id)
    return g, None if isinstance(outputs, Value) else g.outputs


cdef int count_reached(Tape *t, Graph g, uint8_t *reached, uint32_t top) except -1:
    """Mark all that the marked nodes reach; count leaves and nodes."""
    cdef size_t nodes = 0
    cdef size_t leaves = 0
    cdef const Shift *shift
    cdef const Shift *last = NULL
    cdef uint32_t i, k
    for i in range(top, 0, -1):
        if not reached[i]:
            continue
        if t.handle[i] != NULL or op_at(t, i) == CUSTOM or op_at(t, i) == WHERE:
            refuse(t, i)
        if op_at(t, i) == LEAF:
            leaves += 1
            continue
        nodes += links(t, i)
        if op_at(t, i) <= LAST_UNARY:
            reached[node_at(t, i).a] = 1
            shift = shift_of(t, i) if op_at(t, i) == ADD_CONSTANT and t.shifts > 0 else NULL
            if shift != NULL and shift != last:
                last = shift
                nodes += shift.count - 1        # the maximum
                for k in range(shift.count):
                    reached[node_at(t, shift.first + k).a] = 1
        elif op_at(t, i) <= LAST_BINARY:
            reached[node_at(t, i).a] = 1
            reached[node_at(t, i).argument.pair.b] = 1
        else:
            for k in range(operand_count(t, i)):
                reached[operand(t, i, k)] = 1
    if nodes + leaves >= MOST_NODES:
        raise MemoryError(f"a program has at most 2**30 nodes, these outputs reach {nodes + leaves}")
    g.leaves = <uint32_t>leaves
    g.constants = g.leaves - g.inputs - g.parameters
    g.nodes = <uint32_t>(leaves + nodes)
    return 0


cdef int copy_reached(Tape *t, Graph g, const uint8_t *reached, uint32_t *new_id, uint32_t top) except -1:
    """Write constants, then computed nodes."""
    cdef uint32_t i, op
    cdef Argument argument
    cdef const Shift *shift
    cdef const Shift *last = NULL
    cdef uint32_t maximum = 0       # of the set of `last`
    for i in range(1, top + 1):
        if reached[i] and op_at(t, i) == LEAF:
            g.constant[g.nodes - g.inputs - g.parameters] = t.data[i]
            new_id[i] = g.nodes
            g.nodes += 1
    for i in range(1, top + 1):
        op = op_at(t, i)
        if not reached[i] or op == LEAF:
            continue
        argument = node_at(t, i).argument
        if op <= LAST_UNARY:
            shift = shift_of(t, i) if op == ADD_CONSTANT and t.shifts > 0 else NULL
            if shift == NULL:
                new_id[i] = put_node(g, <uint8_t>op, new_id[node_at(t, i).a], 0, argument.constant)
                continue
            if shift != last:
                maximum = put_maximum(t, g, new_id, shift)
                last = shift
            new_id[i] = put_node(g, SHIFT, new_id[node_at(t, i).a], maximum, 0.0)
        elif op <= LAST_BINARY:
            new_id[i] = put_node(g, <uint8_t>op, new_id[node_at(t, i).a], new_id[argument.pair.b], 0.0)
        else:
            new_id[i] = put_chain(t, g, new_id, i)
    return 0


cdef uint32_t put_maximum(Tape *t, Graph g, const uint32_t *new_id, const Shift *shift) noexcept:
    """The largest of what the nodes of a shift are computed from, the first of them if that is nan."""
    cdef uint32_t maximum = new_id[node_at(t, shift.first).a]
    cdef uint32_t k
    for k in range(1, shift.count):
        maximum = put_node(g, LARGER, maximum, new_id[node_at(t, shift.first + k).a], 0.0)
    return maximum


cdef uint32_t put_chain(Tape *t, Graph g, const uint32_t *new_id, uint32_t i) noexcept:
    """A sum or dot as the reference adds: ((0 + v0) + v1) + ..."""
    cdef bint is_dot = op_at(t, i) == DOT or op_at(t, i) == DOT_LISTED or op_at(t, i) == DOT_STRIDED
    cdef uint32_t sum = 0
    cdef uint32_t k, term
    for k in range(node_at(t, i).argument.pair.n):
        if is_dot:
            term = put_node(g, MUL, new_id[operand(t, i, 2 * k)], new_id[operand(t, i, 2 * k + 1)], 0.0)
        else:
            term = new_id[operand(t, i, k)]
        if k == 0:
            sum = put_node(g, ADD_CONSTANT, term, 0, 0.0)
        else:
            sum = put_node(g, ADD, sum, term, 0.0)
    return sum
