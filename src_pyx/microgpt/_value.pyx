"""Value: a scalar and its gradient, as in microgpt.py and micrograd."""

from cpython.dict cimport PyDict_Size
from cpython.long cimport PyLong_AsDouble
from cpython.object cimport Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE, PyObject, PyTypeObject, destructor
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from microgpt cimport _graph
from microgpt._no_grad cimport cut_off, finish
from microgpt._ops cimport evaluate, name_of, operand, operand_count, partial, pow_value
from microgpt._tape cimport (
    ABS, ACOS, ADD, ADD_CONSTANT, ASIN, ATAN, ATAN2, ATAN2_CONSTANT, BLOCK_END, CONSTANT_POW, COS, COSH, CUSTOM, ERF, EXP, EXPM1,
    FLOOR, GELU, HYPOT, HYPOT_CONSTANT, KEPT, LEAF, LGAMMA, LOG, LOG10, LOG1P, LOG2, MUL, MUL_CONSTANT, NO_PARTIALS, POW,
    POW_CONSTANT, RELU, SIGMOID, SILU, SIN, SINH, SOFTPLUS, SPARES, SQRT, TANH, VALUE, Handle, Spares, Tape, anchor,
    anchor_new, custom_words, keep_spare, only_kept, op_at, partials, put_block, put_constant, put_leaf, put_pair, record_at,
    references, release, reserve, reserve_listed, revive_kept, rewind_below, take_spare, tape, write_leaf
)

from numbers import Real

__import__("microgpt._cycles")      # looks after the attributes of this class

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)

ctypedef int (*initproc)(PyObject *made, PyObject *args, PyObject *kwargs) except -1

cdef extern from *:
    """
    #define init_of(type) (((PyTypeObject *)(type))->tp_init)
    #define set_init(type, init) ((void)(init_of(type) = (init)))
    """
    initproc init_of(PyObject *type)
    void set_init(PyObject *type, initproc init)

# What micrograd writes in `_op`; the other ops show their own name there.
cdef dict MICROGRAD_NAMES = {"leaf": "", "add": "+", "mul": "*", "relu": "ReLU"}


# Defaults of the constructor. There is one empty tuple and one empty string.
cdef tuple NOTHING = ()
cdef str NO_NAME = ""


cdef bint number_the_long_way(object x, double *out) except -1:
    """As `number`, for what is neither a plain float nor a Value."""
    if type(x) is int:                      # as `grad = 0`, in many a loop
        out[0] = PyLong_AsDouble(x)
        return True
    if isinstance(x, Handle):
        return False
    if isinstance(x, (int, float, Real)):   # the first two are one look each; Real, numpy's numbers and others, is a long one
        out[0] = float(x)
        return True
    if getattr(x, "shape", None) != () or not hasattr(x, "tolist"):
        return False
    x = x.tolist()                          # numpy's bools are no Real, nor are arrays of no dimension
    if not isinstance(x, (int, float, Real)):
        return False
    out[0] = float(x)
    return True


cdef double as_number(object x, str what) except? -1.0:
    cdef double k
    if not number(x, &k):
        advice = ": take its data" if isinstance(x, Handle) else ""
        raise TypeError(f"{what} needs a number, got {type(x).__name__}{advice}")
    return k


# Lists are filled by `append`: where a list cannot grow, Cython's own comprehension gives up one reference to the item too many.
cdef list as_numbers(object given, str what):
    """Return what `given` yields as a list of floats."""
    cdef list values = []
    for x in given:
        values.append(as_number(x, what))
    return values


cdef uint32_t node(Value value) except 0:
    """Return the id of the node that `value` stands for."""
    if value.id == 0:
        raise RuntimeError(f"this {type(value).__name__} was never made: Value.__init__(self, data) was not called")
    return value.id


cdef Value value_of(uint32_t id):
    """Return the Value of node `id`: the live one if there is one, so that a node has at most one."""
    cdef PyObject *handle = tape.handle[id]
    cdef PyObject *dying = NULL
    cdef Value value
    while handle != NULL:
        if (<Handle>handle).kind == VALUE or (
                (<Handle>handle).kind == KEPT and not FAULT(b"attributes: they are found again")):
            if references(handle) > 0:
                value = <Value>handle
                if value.kind == KEPT:
                    give_back(value)
                return value
            if (<Value>handle).attributes != NULL:
                dying = handle          # in a callback of its own end: what is written on it stays with the node, so moves on
        handle = (<Handle>handle).next
    value = new_value()
    anchor(value, id)
    if dying != NULL:
        value.attributes = (<Value>dying).attributes
        (<Value>dying).attributes = NULL
    return value


cdef Spares spares
cdef destructor general_dealloc = (<PyTypeObject *>Value).tp_dealloc     # Cython's: detaches too, and serves subclasses


cdef inline Value unmade():
    """As `new_value`, without a call."""
    return <Value>take_spare(&spares) if spares.n > 0 else Value.__new__(Value)


cdef Value new_value():
    """Return a Value of no node yet."""
    return unmade()


cdef void end_value(PyObject *value) noexcept:
    """Called when the last reference to `value` goes: release its node and keep the object."""
    if value.ob_type != <PyTypeObject *>Value or (<Value>value).attributes != NULL or spares.n == SPARES:
        end_rare_value(value)
    elif keep_spare(&spares, value):
        release(tape)


cdef void end_another_value(PyObject *value) noexcept:
    """As `end_value`, also for a subclass, and for a Value with attributes."""
    if (<Value>value).attributes == NULL or FAULT(b"attributes: they stay with the node") or not keep_attributes(value):
        general_dealloc(value)
    if tape.dropped != NULL:
        release(tape)


cdef destructor end_rare_value = end_another_value      # a call through this keeps it out of the common way


cdef bint keep_attributes(PyObject *dying) noexcept:
    """What was written on a Value stays as long as its node. Return whether the dying object itself does, too, as KEPT."""
    cdef PyObject *attributes = (<Value>dying).attributes
    cdef uint32_t id = (<Value>dying).id
    cdef Value value
    if id == 0 or PyDict_Size(<object>attributes) == 0:
        (<Value>dying).attributes = NULL
        Py_DECREF(<object>attributes)
        return False
    if dying.ob_type == <PyTypeObject *>Value:
        keep(revive_kept(dying))
        if only_kept(tape.handle[id]):
            rewind_below(tape, id)
        return True
    try:                            # an object of a subclass is half gone already: a plain one keeps its attributes
        value = new_value()
    except MemoryError:
        value = None
    (<Value>dying).attributes = NULL
    if value is None:
        Py_DECREF(<object>attributes)
        return False
    value.attributes = attributes
    anchor(value, id)
    Py_INCREF(value)                # the tape's reference
    keep(<PyObject *>value)
    return False


cdef void keep(PyObject *value) noexcept:
    """Let the tape hold `value`, of which it has a reference now, as long as its node is there."""
    cdef bint is_young = (<Value>value).id >= tape.floor
    (<Value>value).kind = KEPT
    tape.young -= is_young
    tape.kept_young += is_young
    tape.kept += 1


cdef void give_back(Value value):
    """Undo `keep`: somebody refers to `value` again."""
    cdef bint is_young = value.id >= tape.floor
    value.kind = VALUE
    tape.young += is_young
    tape.kept_young -= is_young
    tape.kept -= 1
    Py_DECREF(value)                # the tape's reference


(<PyTypeObject *>Value).tp_dealloc = end_value


cdef initproc general_init = init_of(<PyObject *>Value)


cdef int init_value(PyObject *made, PyObject *args, PyObject *kwargs) except -1:
    """`Value.__init__`; that of a number alone, which most are, without a look for the other arguments."""
    cdef double value
    if kwargs != NULL or PyTuple_GET_SIZE(<object>args) != 1 or (<Value>made).id != 0:
        return general_init(made, args, kwargs)
    value = as_number((<tuple>args)[0], "Value")
    if (<Value>made).id != 0:           # a number's own code may have made it
        return general_init(made, args, kwargs)
    reserve(tape, 1)
    anchor_new(<Value>made, put_leaf(tape, value))
    return 0


set_init(<PyObject *>Value, init_value)


cdef Py_ssize_t attributes_offset(Value some) noexcept:
    return <char *>&some.attributes - <char *><PyObject *>some


# So that Python looks attributes up as those of any object. Cython's own `cdef dict __dict__` would make a dict for each Value.
(<PyTypeObject *>Value).tp_dictoffset = attributes_offset(Value.__new__(Value))


cdef dict attributes_of(Value value):
    """Return what was written on `value`, to be read or added to."""
    cdef dict attributes
    if value.attributes == NULL:
        attributes = {}
        Py_INCREF(attributes)       # owner: the value, or the tape in its place, until the node is gone
        value.attributes = <PyObject *>attributes
    return <dict>value.attributes


cdef int wait_with_leaf(Value value) except -1:
    """Wait until no search is under way, which would take the mark of a leaf for its own."""
    if op_at(tape, node(value)) == LEAF:
        _graph.wait()
    return 0


cdef object attribute(Value value, str name):
    """Return what was written on `value` under `name`, None for nothing."""
    return None if value.attributes == NULL else (<dict>value.attributes).get(name)


cdef int delete_own(Value value, str name) except -1:
    """Take `name` off `value`, whose node then has the one of its op again."""
    if attribute(value, name) is None:
        raise AttributeError(f"this Value has no {name} of its own")
    del attributes_of(value)[name]
    return 0


cdef dict written_on(uint32_t id):
    """Return a copy of what was written on node `id`, None for nothing."""
    cdef PyObject *handle = tape.handle[id]
    cdef dict attributes
    while handle != NULL:
        if (<Handle>handle).attributes != NULL:
            attributes = <dict>(<Handle>handle).attributes
            return attributes.copy() or None
        handle = (<Handle>handle).next
    return None


# The handle comes first, then room, then the value, then the node: whichever fails, nothing half-made stays.

cdef inline void settle_node(Tape *t, Value value, uint32_t id) noexcept:
    """Let the new `value` stand for the node just put, which inside no_grad() becomes a leaf."""
    anchor_new(value, id)
    if t.no_grad > 0:
        cut_off(id)


cdef Value unary(uint8_t op, Value x):
    cdef Value value = unmade()
    cdef Tape *t = tape
    cdef uint32_t a
    reserve(t, 1)
    a = node(x)
    settle_node(t, value, put_constant(t, op, a, 0.0, evaluate(op, t.data[a], 0.0)))
    return value


cdef Value constant(uint8_t op, Value x, double k):
    cdef Value value = unmade()
    cdef Tape *t = tape
    cdef uint32_t a
    cdef double z
    reserve(t, 1)
    a = node(x)
    if op == ADD_CONSTANT:          # as in `binary`
        z = t.data[a] + k
    elif op == MUL_CONSTANT:
        z = t.data[a] * k
    else:
        z = evaluate(op, t.data[a], k)
    settle_node(t, value, put_constant(t, op, a, k, z))
    return value


cdef Value binary(uint8_t op, Value x, Value y):
    cdef Value value = unmade()
    cdef Tape *t = tape
    cdef uint32_t a, b
    cdef double z
    reserve(t, 1)
    a = node(x)
    b = node(y)
    if op == ADD:                   # most nodes of a script are sums and products: without a call
        z = t.data[a] + t.data[b]
    elif op == MUL:
        z = t.data[a] * t.data[b]
    else:
        z = evaluate(op, t.data[a], t.data[b])
    settle_node(t, value, put_pair(t, op, a, b, 0, z))
    return value


cdef int refuse_zero(double denominator) except -1:
    """Raise as a division does. The power that stands for it would speak of powers."""
    if denominator == 0.0:
        raise ZeroDivisionError(f"division by a Value whose data is {denominator!r}")
    return 0


cdef Value reciprocal(Value x):
    """Return x**-1, by which a quotient is written."""
    cdef Value value = unmade()
    cdef Tape *t = tape
    cdef uint32_t a
    reserve(t, 1)
    a = node(x)
    refuse_zero(t.data[a])
    settle_node(t, value, put_constant(t, POW_CONSTANT, a, -1.0, pow_value(t.data[a], -1.0)))
    return value


def restore_leaf(cls, double data, double grad):
    """Return the copy of a leaf, of `Value` or of a class made from it."""
    cdef Value value = cls.__new__(cls)
    Value.__init__(value, data)
    value.grad = grad
    return value


cdef double inverse(double k) except? -1.0:
    """Return k ** -1 of a plain number, as Python computes it."""
    if k == 0.0:
        raise ZeroDivisionError("division of a Value by zero")
    try:
        return (<object>k) ** -1.0
    except OverflowError:
        raise OverflowError(f"1 / {k!r} is too large for a float") from None


cdef uint32_t put_custom(double data, list children, list local_grads) except 0:
    """Put a node with listed operands and partials, or without partials (None)."""
    cdef uint32_t n = <uint32_t>len(children)
    cdef uint32_t start, k
    for child in children:
        if not isinstance(child, Value):
            raise TypeError(f"children must be Values, got {type(child).__name__}")
        node(<Value>child)
    if local_grads is not None and n != <size_t>len(local_grads):
        raise ValueError(f"each child needs its local_grad, got {n} children and {len(local_grads)} local_grads")
    reserve(tape, 1)
    reserve_listed(tape, custom_words(n) + BLOCK_END)
    start = put_block(tape, custom_words(n))
    for k in range(n):
        tape.pool[start + k] = (<Value>children[k]).id
        partials(tape, start, n)[k] = 0.0 if local_grads is None else local_grads[k]
    return put_pair(tape, CUSTOM, start, NO_PARTIALS if local_grads is None else 0, n, data)


cdef object only_one(object ours, object theirs, object nothing, str name):
    """Return what was given under the name of either constructor."""
    if ours is not nothing and theirs is not nothing:
        raise TypeError(f"Value takes {name} once, it was given twice")
    return ours if theirs is nothing else theirs


cdef int refuse_no_list(object given, str what) except -1:
    """Raise TypeError for an argument of the constructor that yields nothing."""
    if not isinstance(given, (tuple, list)) and not hasattr(given, "__iter__"):
        raise TypeError(f"{what} in a tuple or list, got {type(given).__name__}")
    return 0


cdef class Value(Handle):
    """Value(data, children=(), local_grads=(), label='', *, _children=(), _op='')\n--\n\nA scalar that remembers how it was made.

    It keeps what is written on it, too: `value.label = 'loss'`.

    `Value(data)` makes a leaf. `Value(data, children, local_grads)` makes a node of your own: `data` computed from the Values
    `children`, `local_grads` the derivative of `data` by each of them. `Value(data, children, op, label)` is micrograd's way:
    `op` is the node's name, and a function set as its `_backward` adds to the gradients of the children. `_children` and `_op`
    are names of these keywords, too.
    Errors: TypeError unless `data` and `local_grads` are numbers and `children` Values; ValueError unless they are as many.
    """

    label = ""

    def __init__(self, data, children=NOTHING, local_grads=NOTHING, label=NO_NAME, *, _children=NOTHING, _op=NO_NAME):
        cdef double value = as_number(data, "Value")
        cdef list operands = None
        cdef list given = None
        cdef bint plain = (children is NOTHING and local_grads is NOTHING and _children is NOTHING and _op is NO_NAME
                           and label is NO_NAME)
        if not plain:
            if isinstance(local_grads, str):
                _op, local_grads = only_one(local_grads, _op, NO_NAME, "the name of the op"), NOTHING
            if not isinstance(_op, str):
                raise TypeError(f"the name of an op must be a string, got {type(_op).__name__}")
            if isinstance(children, Value) or isinstance(_children, Value):
                raise TypeError("children must be Values in a tuple or list, got a Value alone: write (x,)")
            children = children if _children is NOTHING else only_one(children, _children, NOTHING, "children")
            refuse_no_list(children, "children must be Values")
            operands = list(children)
            if local_grads is not NOTHING or not operands:
                refuse_no_list(local_grads, "local_grads must be numbers")
                given = as_numbers(local_grads, "local_grads")
        if self.id != 0:
            raise TypeError("a Value is made once: __init__ was called again")
        if operands or given:
            tape.own_backward |= given is None
            anchor_new(self, put_custom(value, operands, given))
            finish(self.id)
        else:
            reserve(tape, 1)
            anchor_new(self, put_leaf(tape, value))
        if not plain:
            if _op != "":
                attributes_of(self)["_op"] = _op
            if label is not NO_NAME:
                attributes_of(self)["label"] = label

    @property
    def data(self):
        """The value. Only that of a leaf can be set: what was computed from it keeps the data of then."""
        return tape.data[node(self)]

    @data.setter
    def data(self, data):
        cdef double value = as_number(data, "data")
        if op_at(tape, node(self)) != LEAF:
            raise AttributeError(f"data of a computed node (`{self.op}`) is read-only; only leaves can be set")
        write_leaf(tape, self.id, value)

    @data.deleter
    def data(self):
        raise AttributeError("data of a Value cannot be deleted")

    @property
    def grad(self):
        """d(root)/d(self), summed over every use and every backward() since it was last set to 0."""
        return tape.grad[node(self)]

    @grad.setter
    def grad(self, grad):
        tape.grad[node(self)] = as_number(grad, "grad")

    @grad.deleter
    def grad(self):
        raise AttributeError("grad of a Value cannot be deleted")

    @property
    def op(self):
        """Name of the op that made this node, "leaf" for a variable; of a node of your own the name that you gave it."""
        cdef str name = name_of(op_at(tape, node(self)))
        return attribute(self, "_op") or name

    @property
    def children(self):
        """The Values that this node was computed from, in constructor order; for a dot w[0], x[0], w[1], x[1], ...

        A number in an expression is part of its node, not a child.
        """
        cdef uint32_t k
        # A new list can run the cyclic collector, so any code, so a collection of the tape: first the list, then the ids.
        cdef list values = [None] * operand_count(tape, node(self))
        for k in range(<uint32_t>len(values)):
            values[k] = value_of(operand(tape, self.id, k))
        return tuple(values)

    @property
    def local_grads(self):
        """The derivative of this node by each of its children.

        Errors: RuntimeError if a leaf was changed after it was used, and for a node whose own `_backward` alone knows them.
        """
        cdef uint32_t k
        cdef list values = [None] * operand_count(tape, node(self))     # as in `children`; leaves could change, too
        _graph.refuse_stale(tape, self.id)
        if _graph.has_no_partials(tape, self.id):
            raise RuntimeError(f"the node `{self.op}` was made without local_grads")
        for k in range(<uint32_t>len(values)):
            values[k] = partial(tape, self.id, k)
        return tuple(values)

    @property
    def _children(self):
        return self.children

    @property
    def _local_grads(self):
        return self.local_grads

    @property
    def _prev(self):
        return set(self.children)

    @property
    def _op(self):
        name = attribute(self, "_op")
        if name is not None:
            return name
        if op_at(tape, node(self)) == POW_CONSTANT:
            return "**" + repr(record_at(tape, node(self)).argument.constant).removesuffix(".0")
        return MICROGRAD_NAMES.get(self.op, self.op)

    @_op.setter
    def _op(self, name):
        attributes_of(self)["_op"] = name

    @_op.deleter
    def _op(self):
        delete_own(self, "_op")

    @property
    def _backward(self):
        """A function of no arguments that does this node's step of backward(): adds to the grad of each child.

        It can be set, to one of your own, which backward() then calls when it comes to the node. A backward() that is under way
        does so, too, unless it goes along rows (of Vectors and matrices), the node is a leaf, or the function was written into
        vars(value): then the next one does.
        """
        node(self)
        own = attribute(self, "_backward")
        return self._pass_on if own is None else own

    @_backward.setter
    def _backward(self, function):
        if not callable(function):
            raise TypeError(f"_backward must be a function of no arguments, got {type(function).__name__}")
        wait_with_leaf(self)
        _graph.note_own(tape, self.id, True)
        attributes_of(self)["_backward"] = function

    @_backward.deleter
    def _backward(self):
        wait_with_leaf(self)
        delete_own(self, "_backward")
        _graph.note_own(tape, self.id, False)

    def _pass_on(self):
        _graph.pass_on(tape, node(self))

    @property
    def __dict__(self):
        tape.shown = True
        return attributes_of(self)

    def __setstate__(self, state):
        for name, value in state.items():
            setattr(self, name, value)

    def backward(self):
        """Add the derivative of this node by every node below it to their grad; its own becomes 1.

        Gradients add up until they are set to 0, those of computed nodes included: a second backward through the same graph
        passes on the first one's as well, as in microgpt.py.
        Errors: RuntimeError if a leaf was changed after it was used.
        Cost: proportional to the nodes below; no recursion.
        """
        node(self)
        _graph.backward(tape, self)

    def zero_grad(self):
        """Set grad to 0, here and at every node below."""
        node(self)
        _graph.zero_grad(tape, self)

    def detach(self):
        """Return a new leaf with the same data: no gradient comes here through it."""
        return Value(self.data)

    def __reduce__(self):
        """Copy and pickle a leaf with its gradient. A computed node stays: it would take its whole graph along."""
        if op_at(tape, node(self)) != LEAF:
            raise TypeError(f"a computed node (`{self.op}`) cannot be copied or pickled: take value.data, or copy its leaves")
        return restore_leaf, (type(self), self.data, self.grad), attributes_of(self).copy() or None

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __float__(self):
        """Refuse: what is computed from the float has no gradient, so that `math.exp(value)` would lose it unnoticed."""
        raise TypeError("a Value does not become a float by itself, its gradient would be lost: take value.data for the number, "
                        "or microgpt's functions, such as microgpt.exp(value), for ops")

    def __int__(self):
        return int(tape.data[node(self)])

    def __round__(self, digits=None):
        return round(tape.data[node(self)], digits)

    def __format__(self, form):
        return format(tape.data[node(self)], form) if form else repr(self)

    def __richcmp__(self, other, int how):
        """Compare data with that of a Value or with a number. Only `==` and `!=` are identity."""
        cdef double x, y
        if how == Py_EQ or how == Py_NE:
            return NotImplemented
        if isinstance(other, Value):
            y = tape.data[node(<Value>other)]
        elif not number(other, &y):
            return NotImplemented
        x = tape.data[node(self)]
        if how == Py_LT:
            return x < y
        if how == Py_LE:
            return x <= y
        return x > y if how == Py_GT else x >= y

    def __hash__(self):
        return (<PyTypeObject *>object).tp_hash(self)

    def __add__(self, other):
        """Return data + other. Partials: 1, 1."""
        cdef double k
        if number(other, &k):
            return constant(ADD_CONSTANT, self, k)
        if isinstance(other, Value):
            return binary(ADD, self, <Value>other)
        return NotImplemented

    def __radd__(self, other):
        cdef double k
        if number(other, &k):
            return constant(ADD_CONSTANT, self, k)
        return NotImplemented

    def __mul__(self, other):
        """Return data * other. Partials: other, data."""
        cdef double k
        if number(other, &k):
            return constant(MUL_CONSTANT, self, k)
        if isinstance(other, Value):
            return binary(MUL, self, <Value>other)
        return NotImplemented

    def __rmul__(self, other):
        cdef double k
        if number(other, &k):
            return constant(MUL_CONSTANT, self, k)
        return NotImplemented

    def __neg__(self):
        """Return data * -1, one node."""
        return constant(MUL_CONSTANT, self, -1.0)

    def __sub__(self, other):
        """Return data + (-other), two nodes if `other` is a Value."""
        cdef double k
        if number(other, &k):
            return constant(ADD_CONSTANT, self, -k)
        if isinstance(other, Value):
            return binary(ADD, self, constant(MUL_CONSTANT, <Value>other, -1.0))
        return NotImplemented

    def __rsub__(self, other):
        """Return (-data) + other, two nodes."""
        cdef double k
        if number(other, &k):
            return constant(ADD_CONSTANT, constant(MUL_CONSTANT, self, -1.0), k)
        return NotImplemented

    def __truediv__(self, other):
        """Return data * other**-1, two nodes if `other` is a Value. ZeroDivisionError if `other` is 0."""
        cdef double k
        if number(other, &k):
            return constant(MUL_CONSTANT, self, inverse(k))
        if isinstance(other, Value):
            return binary(MUL, self, reciprocal(<Value>other))
        return NotImplemented

    def __rtruediv__(self, other):
        """Return data**-1 * other, two nodes. ZeroDivisionError if data is 0."""
        cdef double k
        if number(other, &k):
            return constant(MUL_CONSTANT, reciprocal(self), k)
        return NotImplemented

    def __pow__(self, other, modulo=None):
        """Return data ** other.

        A number as exponent: a negative base needs a whole exponent, a base of 0 an exponent of at least 1. A Value as exponent:
        data >= 0. Partials: other * data**(other - 1), and for a Value data**other * log(data), 0 where data is 0.
        Errors: ValueError, ZeroDivisionError, OverflowError, also where only the partial has no value.
        """
        cdef double k
        if modulo is not None:
            return NotImplemented
        if number(other, &k):
            return constant(POW_CONSTANT, self, k)
        if isinstance(other, Value):
            return binary(POW, self, <Value>other)
        return NotImplemented

    def __rpow__(self, other, modulo=None):
        """Return other ** data, other >= 0."""
        cdef double k
        if modulo is None and number(other, &k):
            return constant(CONSTANT_POW, self, k)
        return NotImplemented

    def __abs__(self):
        return unary(ABS, self)

    def exp(self):
        """Return e ** data. OverflowError above 709.78. Partial: result."""
        return unary(EXP, self)

    def log(self):
        """Return the natural logarithm. ValueError unless data > 0. Partial: 1 / data."""
        return unary(LOG, self)

    def relu(self):
        """Return max(0, data). Any data; nan -> 0. Partial: 1 where data > 0, else 0."""
        return unary(RELU, self)

    def tanh(self):
        """Return tanh(data). Any data; inf -> 1. Partial: 1 - result**2, from the result."""
        return unary(TANH, self)

    def sigmoid(self):
        """Return 1 / (1 + exp(-data)). Any data. Partial: result * (1 - result), from the operand."""
        return unary(SIGMOID, self)

    def sqrt(self):
        """Return the square root. ValueError unless data > 0: at 0 the partial is infinite. Partial: 0.5 / result."""
        return unary(SQRT, self)

    def sin(self):
        """Return sin(data), data in radians. ValueError if data is infinite. Partial: cos(data)."""
        return unary(SIN, self)

    def cos(self):
        """Return cos(data), data in radians. ValueError if data is infinite. Partial: -sin(data)."""
        return unary(COS, self)

    def abs(self):
        """Return |data|. Any data. Partial: the sign of data, 0 at 0."""
        return unary(ABS, self)

    def atan(self):
        """Return the arc tangent, in radians. Any data. Partial: 1 / (1 + data**2)."""
        return unary(ATAN, self)

    def asin(self):
        """Return the arc sine, in radians. ValueError unless -1 < data < 1: at the ends the partial is infinite.

        Partial: 1 / sqrt(1 - data**2).
        """
        return unary(ASIN, self)

    def acos(self):
        """Return the arc cosine, in radians. ValueError unless -1 < data < 1. Partial: -1 / sqrt(1 - data**2)."""
        return unary(ACOS, self)

    def sinh(self):
        """Return the hyperbolic sine. OverflowError beyond 710.47 on either side. Partial: cosh(data)."""
        return unary(SINH, self)

    def cosh(self):
        """Return the hyperbolic cosine. OverflowError beyond 710.47 on either side. Partial: sinh(data)."""
        return unary(COSH, self)

    def log1p(self):
        """Return log(1 + data), exact next to 0. ValueError unless data > -1. Partial: 1 / (1 + data)."""
        return unary(LOG1P, self)

    def expm1(self):
        """Return exp(data) - 1, exact next to 0. OverflowError above 709.78. Partial: exp(data), from the operand."""
        return unary(EXPM1, self)

    def log2(self):
        """Return the logarithm to base 2. ValueError unless data > 0. Partial: log2(e) / data."""
        return unary(LOG2, self)

    def log10(self):
        """Return the logarithm to base 10. ValueError unless data > 0. Partial: log10(e) / data."""
        return unary(LOG10, self)

    def erf(self):
        """Return the error function. Any data. Partial: 2 / sqrt(pi) * exp(-data**2)."""
        return unary(ERF, self)

    def lgamma(self):
        """Return log(|gamma(data)|). ValueError at 0, -1, -2, ...; OverflowError above 2.559e305. Partial: digamma(data)."""
        return unary(LGAMMA, self)

    def gelu(self):
        """Return data * Phi(data), Phi the normal distribution: the form with erf, not that with tanh. Any data.

        Partial: Phi(data) + data * the normal density.
        Source: Hendrycks & Gimpel 2016.
        """
        return unary(GELU, self)

    def silu(self):
        """Return data * sigmoid(data). Any data. Partial: sigmoid + data * its partial."""
        return unary(SILU, self)

    def softplus(self):
        """Return log(1 + exp(data)), without overflow. Any data. Partial: sigmoid(data)."""
        return unary(SOFTPLUS, self)

    def floor(self):
        """Return the largest whole number that is not above data. Any data; inf and nan stay. Partial: 0."""
        return unary(FLOOR, self)

    def atan2(self, x):
        """Return the angle of the point (x, data), in radians. ValueError if both are 0.

        Partials: x / (x**2 + data**2), and for a Value x -data / (x**2 + data**2).
        """
        return binary(ATAN2, self, <Value>x) if isinstance(x, Value) else constant(ATAN2_CONSTANT, self, as_number(x, "atan2"))

    def hypot(self, other):
        """Return sqrt(data**2 + other**2), without overflow on the way. OverflowError if the result is too large.

        Partials: data / result, other / result; 0 where both are 0.
        """
        if isinstance(other, Value):
            return binary(HYPOT, self, <Value>other)
        return constant(HYPOT_CONSTANT, self, as_number(other, "hypot"))
