"""Value: a scalar and its gradient, as in microgpt.py and micrograd."""

from cpython.object cimport PyObject, PyTypeObject, destructor
from libc.stdint cimport uint8_t, uint32_t

from microgpt cimport _graph
from microgpt._ops cimport evaluate, name_of, operand, operand_count, partial
from microgpt._tape cimport (
    ABS, ADD, ADD_CONSTANT, BLOCK_END, CONSTANT_POW, COS, CUSTOM, EXP, LEAF, LOG, MUL, MUL_CONSTANT, POW, POW_CONSTANT, RELU,
    SIGMOID, SIN, SPARES, SQRT, TANH, Handle, Spares, anchor, anchor_new, custom_words, keep_spare, new_stamp, partials,
    put_block, put_constant, put_leaf, put_pair, reserve, reserve_listed, take_spare, tape
)

from numbers import Real

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *o)       # the field itself is another one in free-threaded builds

# What micrograd writes in `_op`; the other ops show their own name there.
cdef dict MICROGRAD_NAMES = {"leaf": "", "add": "+", "mul": "*", "relu": "ReLU"}


cdef tuple NOTHING = ()             # the default of children and local_grads: there is one empty tuple


cdef bint number_the_long_way(object x, double *out) except -1:
    """As `number`, for what is neither a plain float nor a Value."""
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
        raise TypeError(f"{what} needs a number, got {type(x).__name__}")
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
    cdef Value value
    while handle != NULL:
        # A handle without references is about to go, in a callback of its own end.
        if Py_REFCNT(handle) > 0 and isinstance(<object>handle, Value):
            return <Value>handle
        handle = (<Handle>handle).next
    value = new_value()
    anchor(value, id)
    return value


cdef Spares spares
cdef destructor general_dealloc = (<PyTypeObject *>Value).tp_dealloc     # Cython's: detaches too, and serves subclasses


cdef Value new_value():
    """Return a Value of no node yet."""
    return <Value>take_spare(&spares) if spares.n > 0 else Value.__new__(Value)


cdef void end_value(PyObject *value) noexcept:
    """Called when the last reference to `value` goes: release its node and keep the object."""
    if value.ob_type != <PyTypeObject *>Value or spares.n == SPARES:
        general_dealloc(value)
    else:
        keep_spare(&spares, value)


(<PyTypeObject *>Value).tp_dealloc = end_value


# The handle comes first, then room, then the value, then the node: whichever fails, nothing half-made stays.

cdef Value unary(uint8_t op, Value x):
    cdef Value value = new_value()
    cdef uint32_t a
    reserve(tape, 1)
    a = node(x)
    anchor_new(value, put_constant(tape, op, a, 0.0, evaluate(op, tape.data[a], 0.0)))
    return value


cdef Value constant(uint8_t op, Value x, double k):
    cdef Value value = new_value()
    cdef uint32_t a
    reserve(tape, 1)
    a = node(x)
    anchor_new(value, put_constant(tape, op, a, k, evaluate(op, tape.data[a], k)))
    return value


cdef Value binary(uint8_t op, Value x, Value y):
    cdef Value value = new_value()
    cdef uint32_t a, b
    cdef double z
    reserve(tape, 1)
    a = node(x)
    b = node(y)
    if op == ADD:                   # most nodes of a script are sums and products: without a call
        z = tape.data[a] + tape.data[b]
    elif op == MUL:
        z = tape.data[a] * tape.data[b]
    else:
        z = evaluate(op, tape.data[a], tape.data[b])
    anchor_new(value, put_pair(tape, op, a, b, 0, z))
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
    """Put a node with listed operands and partials."""
    cdef uint32_t n = <uint32_t>len(children)
    cdef uint32_t start, k
    for child in children:
        if not isinstance(child, Value):
            raise TypeError(f"children must be Values, got {type(child).__name__}")
        node(<Value>child)
    if n != <size_t>len(local_grads):
        raise ValueError(f"each child needs its local_grad, got {n} children and {len(local_grads)} local_grads")
    reserve(tape, 1)
    reserve_listed(tape, custom_words(n) + BLOCK_END)
    start = put_block(tape, custom_words(n))
    for k in range(n):
        tape.pool[start + k] = (<Value>children[k]).id
        partials(tape, start, n)[k] = local_grads[k]
    return put_pair(tape, CUSTOM, start, 0, n, data)


cdef class Value(Handle):
    """Value(data, children=(), local_grads=())\n--\n\nA scalar that remembers how it was computed.

    `Value(data)` makes a leaf. `Value(data, children, local_grads)` makes a node of your own: `data` computed from the Values
    `children`, `local_grads` the derivative of `data` by each of them.
    Errors: TypeError unless `data` and `local_grads` are numbers and `children` Values; ValueError unless they are as many.
    """

    def __init__(self, data, children=(), local_grads=()):
        cdef double value = as_number(data, "Value")
        cdef list operands = None
        cdef list given = None
        if children is not NOTHING or local_grads is not NOTHING:
            operands = list(children)
            given = as_numbers(local_grads, "local_grads")
        if self.id != 0:
            raise TypeError("a Value is made once: __init__ was called again")
        if operands or given:
            anchor_new(self, put_custom(value, operands, given))
        else:
            reserve(tape, 1)
            anchor_new(self, put_leaf(tape, value))

    @property
    def data(self):
        """The value. Only that of a leaf can be set: what was computed from it keeps the data of then."""
        return tape.data[node(self)]

    @data.setter
    def data(self, data):
        cdef double value = as_number(data, "data")
        if tape.node[node(self)].op != LEAF:
            raise AttributeError(f"data of a computed node (`{self.op}`) is read-only; only leaves can be set")
        tape.node[node(self)].argument.stamp = new_stamp(tape)
        tape.data[node(self)] = value

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
        """Name of the op that made this node, "leaf" for a variable."""
        return name_of(tape.node[node(self)].op)

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
        """The derivative of this node by each of its children. RuntimeError if a leaf was changed after it was used."""
        cdef uint32_t k
        cdef list values
        _graph.refuse_stale(tape, node(self))
        values = [None] * operand_count(tape, self.id)
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
        if tape.node[node(self)].op == POW_CONSTANT:
            return "**" + repr(tape.node[node(self)].argument.constant).removesuffix(".0")
        return MICROGRAD_NAMES.get(self.op, self.op)

    def backward(self):
        """Add the derivative of this node by every node below it to their grad; its own becomes 1.

        Gradients add up until they are set to 0, those of computed nodes included: a second backward through the same graph
        passes on the first one's as well, as in microgpt.py.
        Errors: RuntimeError if a leaf was changed after it was used.
        Cost: proportional to the nodes below; no recursion.
        """
        _graph.backward(tape, node(self))

    def zero_grad(self):
        """Set grad to 0, here and at every node below."""
        _graph.zero_grad(tape, node(self))

    def __reduce__(self):
        """Copy and pickle a leaf with its gradient. A computed node stays: it would take its whole graph along."""
        if tape.node[node(self)].op != LEAF:
            raise TypeError(f"a computed node (`{self.op}`) cannot be copied or pickled: take float(value), or copy its leaves")
        return restore_leaf, (type(self), self.data, self.grad), getattr(self, "__dict__", None)

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __float__(self):
        return tape.data[node(self)]

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
            return binary(MUL, self, constant(POW_CONSTANT, <Value>other, -1.0))
        return NotImplemented

    def __rtruediv__(self, other):
        """Return data**-1 * other, two nodes. ZeroDivisionError if data is 0."""
        cdef double k
        if number(other, &k):
            return constant(MUL_CONSTANT, constant(POW_CONSTANT, self, -1.0), k)
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
