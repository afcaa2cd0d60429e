"""Vector: a run of scalar nodes. An operation on it puts one node for each scalar of its result."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject, destructor
from cpython.slice cimport PySlice_GetIndicesEx
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcpy

from microgpt cimport _tape
from microgpt._no_grad cimport finish
from microgpt._ops cimport name_of
from microgpt._runs cimport (
    Operands, at, put_constant_run, put_dot, put_pair_run, put_sum, put_unary_run, run, same
)
from microgpt._tape cimport (
    ABS, ADD, ADD_CONSTANT, BLOCK_END, CONSTANT_POW, LEAF, MUL, MUL_CONSTANT, POW, POW_CONSTANT, SPARES, VECTOR, Behaviour,
    Spares, Tape, Visit, anchor, keep_spare, op_at, put_leaf, release, reserve, reserve_listed, take_spare, tape, write_leaf
)
from microgpt._value cimport (
    Value, as_number, as_numbers, constant, inverse, new_value, node, number, refuse_zero, unary, value_of
)

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object index, PyObject *overflow) except? -1   # with NULL: cut to what a Py_ssize_t holds

cdef Spares spares
cdef destructor general_dealloc = (<PyTypeObject *>Vector).tp_dealloc


cdef Vector new_vector():
    """Return a Vector of no nodes yet."""
    return <Vector>take_spare(&spares) if spares.n > 0 else Vector.__new__(Vector)


cdef void end_vector(PyObject *vector) noexcept:
    """Called when the last reference to `vector` goes, as `end_value` in _value.pyx."""
    if vector.ob_type != <PyTypeObject *>Vector or spares.n == SPARES:
        general_dealloc(vector)
        return
    PyMem_Free((<Vector>vector).listed)
    (<Vector>vector).listed = NULL
    (<Vector>vector).n = 0
    if keep_spare(&spares, vector):
        release(tape)


(<PyTypeObject *>Vector).tp_dealloc = end_vector


cdef void each_of_vector(PyObject *vector, Tape *t, Visit visit) noexcept:
    cdef const uint32_t *listed = (<Vector>vector).listed       # no reference is taken: the Vector may be dying
    cdef uint32_t start = (<Vector>vector).start
    cdef uint32_t i
    for i in range((<Vector>vector).n):
        visit(t, start + i if listed == NULL else listed[i])


cdef void move_vector(PyObject *vector, const uint32_t *moved) noexcept:
    cdef uint32_t *listed = (<Vector>vector).listed
    cdef uint32_t i
    if listed == NULL:
        (<Vector>vector).start = moved[(<Vector>vector).start]
    else:
        for i in range((<Vector>vector).n):
            listed[i] = moved[listed[i]]


_tape.behaviour_of_vectors = Behaviour(each_of_vector, move_vector)

# Inside the classes sizes, elements and ids are read from the C members alone: a subclass may override `__len__`, `__iter__`,
# `data` and the rest, and what they return says nothing of the nodes.

cdef void settle(Vector v, uint32_t start, uint32_t n) noexcept:
    """Let the new `v` stand for the run of `n` nodes from `start`."""
    v.start = start
    v.n = n
    anchor(v, start + n - 1)


cdef void settle_result(Vector v, uint32_t start, uint32_t n) noexcept:
    """As `settle`, for what an op has made."""
    settle(v, start, n)
    finish(start)


cdef Vector detached(Vector v):
    """Return a Vector of new leaves with the data of `v`."""
    cdef Vector leaves = new_vector()
    cdef uint32_t start, i
    reserve(tape, v.n)
    start = tape.top
    for i in range(v.n):
        put_leaf(tape, tape.data[at(elements(v, 0), i)])
    settle(leaves, start, v.n)
    return leaves


cdef uint32_t *room_for_ids(Vector v, size_t n) except NULL:
    """Give the new `v` room for `n` ids, and return it. `settle_listed` comes next, or nothing."""
    PyMem_Free(v.listed)
    v.listed = <uint32_t *>PyMem_Malloc(n * sizeof(uint32_t))   # owner: v, until its __dealloc__
    if v.listed == NULL:
        raise MemoryError(f"no room for a Vector of {n}")
    return v.listed


cdef void settle_listed(Vector v, uint32_t n) noexcept:
    """Let the new `v` stand for the `n` nodes whose ids it has, as a run if they are one."""
    cdef uint32_t first = v.listed[0]
    cdef uint32_t highest = first
    cdef uint32_t i
    cdef bint is_run = True
    for i in range(1, n):
        is_run &= v.listed[i] == first + i
        highest = max(highest, v.listed[i])
    if is_run:
        PyMem_Free(v.listed)
        v.listed = NULL
        settle(v, first, n)
        return
    v.n = n
    anchor(v, highest)


cdef int fill(Vector v, Operands x, uint32_t n) except -1:
    """Let the new `v` stand for the first `n` of `x`."""
    cdef uint32_t *ids
    cdef uint32_t i
    if x.listed == NULL and x.step == 1:
        settle(v, x.start, n)
        return 0
    ids = room_for_ids(v, n)
    for i in range(n):
        ids[i] = at(x, i)
    settle_listed(v, n)
    return 0


cdef Py_ssize_t as_whole(object x) except? -1:
    """Return a whole number, cut to what a Py_ssize_t holds: it is out of every range then, too."""
    return PyNumber_AsSsize_t(x, NULL)


cdef uint32_t place(object index, uint32_t count) except? 0:
    """Return the place that `index` means, which may be counted from the end; `count` if there is none."""
    cdef Py_ssize_t i = as_whole(index)
    if i < 0:
        i += count
    return <uint32_t>i if 0 <= i < <Py_ssize_t>count else count


cdef object as_list(object x):
    """Return the numbers of another library's array as it lists them itself, row by row; anything else as it is."""
    if isinstance(x, (Handle, list, tuple)) or not hasattr(x, "tolist"):
        return x
    return x.tolist()


cdef bint is_nested(object x) except -1:
    """Whether `x` is a list of lists."""
    return isinstance(x, (list, tuple)) and len(x) > 0 and isinstance(x[0], (list, tuple))


cdef tuple shape_of_list(object x):
    """Return the lengths of nested lists, by the first of each."""
    if not isinstance(x, (list, tuple)):
        return ()
    return (len(x), *(shape_of_list(x[0]) if len(x) > 0 else ()))


cdef Vector as_vector(object x):
    cdef Vector v = x if isinstance(x, Vector) else Vector(x)
    if v.n == 0:
        raise RuntimeError("this Vector was never made: Vector.__init__ was not called")
    return v


cdef object apply(uint8_t op, object x):
    """Return `op` of a Value, or of each element of a Vector or list."""
    cdef Vector v, result
    if isinstance(x, Value):
        return unary(op, <Value>x)
    if not hasattr(x, "__iter__") or isinstance(x, (str, bytes)):
        raise TypeError(f"{name_of(op)} needs a Value, a Vector, a list of Values or Rows, got {type(x).__name__}")
    v = as_vector(x)
    result = new_vector()
    reserve(tape, v.n)
    settle_result(result, put_unary_run(op, elements(v, 0), v.n), v.n)
    return result


cdef object arithmetic(Arithmetic how, Vector v, object other, bint reflected):
    """Return `v` how `other`, elementwise, or `other` how `v` where reflected; NotImplemented for a foreign `other`."""
    cdef Vector w = None
    cdef Vector result
    cdef double k = 0.0
    v = as_vector(v)
    if not isinstance(other, (Value, Vector, list, tuple)) and not number(other, &k):
        other = as_list(other)
        if not isinstance(other, (list, tuple)):
            return NotImplemented
    if isinstance(other, (Vector, list, tuple)):
        w = as_vector(other)
        if w.n != v.n:
            raise ValueError(f"elementwise operations need vectors of one length, got {v.n} and {w.n}")
    result = new_vector()
    reserve(tape, 2 * <size_t>v.n)
    if w is not None:
        start = put_arithmetic(how, elements(v, 0), elements(w, 0), v.n, reflected)
    elif isinstance(other, Value):
        start = put_arithmetic(how, elements(v, 0), same(node(<Value>other)), v.n, reflected)
    else:
        start = put_arithmetic_constant(how, elements(v, 0), k, v.n, reflected)
    settle_result(result, start, v.n)
    return result


cdef uint32_t put_reciprocals(Operands x, uint32_t n) except 0:
    """x**-1, by which quotients are written."""
    cdef uint32_t i
    tape.fixed += 1                 # a new exception can run the cyclic collector, so any code, and `x` is needed after it
    try:
        try:
            return put_constant_run(POW_CONSTANT, x, n, -1.0)
        except ZeroDivisionError:
            pass
        for i in range(n):          # the first element that cannot be divided by is a zero, told as such
            refuse_zero(tape.data[at(x, i)])
    finally:
        tape.fixed -= 1


cdef uint32_t put_arithmetic(Arithmetic how, Operands x, Operands y, uint32_t n, bint reflected) except 0:
    if reflected:
        x, y = y, x
    if how == PLUS:
        return put_pair_run(ADD, x, y, n)
    if how == MINUS:
        return put_pair_run(ADD, x, run(put_constant_run(MUL_CONSTANT, y, n, -1.0)), n)
    if how == TIMES:
        return put_pair_run(MUL, x, y, n)
    if how == OVER:
        return put_pair_run(MUL, x, run(put_reciprocals(y, n)), n)
    return put_pair_run(POW, x, y, n)


cdef uint32_t put_arithmetic_constant(Arithmetic how, Operands x, double k, uint32_t n, bint reflected) except 0:
    if how == PLUS:
        return put_constant_run(ADD_CONSTANT, x, n, k)
    if how == MINUS:
        if reflected:
            return put_constant_run(ADD_CONSTANT, run(put_constant_run(MUL_CONSTANT, x, n, -1.0)), n, k)
        return put_constant_run(ADD_CONSTANT, x, n, -k)
    if how == TIMES:
        return put_constant_run(MUL_CONSTANT, x, n, k)
    if how == OVER:
        if reflected:
            return put_constant_run(MUL_CONSTANT, run(put_reciprocals(x, n)), n, k)
        return put_constant_run(MUL_CONSTANT, x, n, inverse(k))
    return put_constant_run(CONSTANT_POW if reflected else POW_CONSTANT, x, n, k)


cdef Value total(Vector v):
    """Return the sum, from 0 and left to right, one node."""
    cdef Value result = new_value()
    reserve(tape, 1)
    reserve_listed(tape, <size_t>v.n + BLOCK_END)
    anchor(result, put_sum(elements(v, 0), v.n))
    finish(result.id)
    return result


cdef Value dot(Vector v, Vector w):
    cdef Value result = new_value()
    if v.n != w.n:
        raise ValueError(f"a dot needs vectors of one length, got {v.n} and {w.n}")
    reserve(tape, 1)
    reserve_listed(tape, 2 * <size_t>v.n + BLOCK_END)
    anchor(result, put_dot(elements(v, 0), elements(w, 0), v.n))
    finish(result.id)
    return result


cdef class Vector(Handle):
    """Vector(items)\n--\n\nA fixed run of scalars.

    `Vector(items)` holds the given Values, and a new leaf for each number. A list of Values and numbers, or an array of numpy,
    is as good wherever one is taken.
    Shape: [n], n >= 1. Operators work elementwise with a Vector, a Value or a number; `v @ w` is the dot, a Value.
    Errors: TypeError for an item that is neither Value nor number; ValueError without items, or if lengths differ.
    """

    def __cinit__(self):
        self.kind = VECTOR

    def __init__(self, items):
        cdef uint32_t n, i
        cdef uint32_t *ids
        cdef list given
        if not isinstance(items, Vector):
            items = as_list(items)
            if isinstance(items, (str, bytes, Handle)) or not hasattr(items, "__iter__"):
                raise TypeError(f"a Vector needs a list of Values or numbers, got {type(items).__name__}")
            if is_nested(items):
                raise ValueError(f"a Vector has one dimension, got {shape_of_list(items)}: Rows or a Matrix have two")
            given = []
            for item in items:
                given.append(item if isinstance(item, Value) else as_number(item, "Vector"))
        if self.n != 0:             # asked here: an iterator is Python code, which could have made the Vector meanwhile
            raise TypeError("a Vector is made once: __init__ was called again")
        if isinstance(items, Vector):
            fill(self, elements(as_vector(items), 0), (<Vector>items).n)
            return
        if not 0 < len(given) < UINT32_MAX:
            raise ValueError("Vector needs at least one element" if not given else "Vector has too many elements")
        n = <uint32_t>len(given)
        reserve(tape, n)
        ids = room_for_ids(self, n)
        for i in range(n):
            item = given[i]
            ids[i] = node(<Value>item) if isinstance(item, Value) else put_leaf(tape, item)
        settle_listed(self, n)

    def __dealloc__(self):
        PyMem_Free(self.listed)

    def __len__(self):
        return self.n

    def __iter__(self):
        for i in range(self.n):
            yield value_of(at(elements(self, 0), i))

    def __getitem__(self, index):
        """Return the Value of element `index`, or a Vector of the same nodes for a slice."""
        cdef Py_ssize_t first, _stop, step, count
        cdef Vector part
        cdef Operands x
        cdef uint32_t i
        if isinstance(index, slice):
            PySlice_GetIndicesEx(index, self.n, &first, &_stop, &step, &count)
            if count == 0:
                raise ValueError(f"a slice of a Vector needs at least one element, this one of {self.n} is empty")
            part = new_vector()
            x = elements(self, <uint32_t>first)
            if x.listed == NULL:
                x.step = <uint32_t>step             # backwards too: ids are counted modulo 2**32
                fill(part, x, <uint32_t>count)
            else:
                list_part(part, x.listed, step, <uint32_t>count)
            return part
        i = place(index, self.n)
        if i == self.n:
            raise IndexError(f"index {index} is out of range for a Vector of {self.n}")
        return value_of(at(elements(self, 0), i))

    @property
    def data(self):
        """The values, a list of floats. Only those of leaves can be set."""
        return numbers_of(self, 0, self.n, False)

    @data.setter
    def data(self, data):
        cdef list values = numbers(data, self.n)
        cdef Operands x = elements(self, 0)
        for i in range(self.n):
            if op_at(tape, at(x, i)) != LEAF:
                raise AttributeError("data of a computed Vector is read-only; only leaves can be set")
        write_leaves(x, values)

    @data.deleter
    def data(self):
        raise AttributeError("data of a Vector cannot be deleted")

    @property
    def grad(self):
        """The gradients, a list of floats."""
        return numbers_of(self, 0, self.n, True)

    @grad.setter
    def grad(self, grad):
        cdef list values = numbers(grad, self.n)
        write_grads(elements(self, 0), values)

    @grad.deleter
    def grad(self):
        raise AttributeError("grad of a Vector cannot be deleted")

    def copy_data(self, buffer):
        """Copy the values into a writable, contiguous buffer of as many doubles or floats: an array, a numpy array, ...

        Errors: TypeError for what is no such buffer; ValueError for one of another length.
        """
        copy_numbers(as_vector(self), buffer, False)

    def copy_grad(self, buffer):
        """Copy the gradients into a buffer, as `copy_data` does the values."""
        copy_numbers(as_vector(self), buffer, True)

    def detach(self):
        """Return a Vector of new leaves with the same data: no gradient comes here through them."""
        return detached(as_vector(self))

    def __reduce__(self):
        raise TypeError("a Vector is a view and cannot be copied or pickled: take vector.data, or copy its Values or Matrix")

    def __repr__(self):
        cdef bint whole = self.n <= WHOLE
        return f"Vector(data={shown(self, 0, self.n, False, whole)}, grad={shown(self, 0, self.n, True, whole)})"

    def __add__(self, other):
        return arithmetic(PLUS, self, other, False)

    def __radd__(self, other):
        return arithmetic(PLUS, self, other, True)

    def __sub__(self, other):
        return arithmetic(MINUS, self, other, False)

    def __rsub__(self, other):
        return arithmetic(MINUS, self, other, True)

    def __mul__(self, other):
        return arithmetic(TIMES, self, other, False)

    def __rmul__(self, other):
        return arithmetic(TIMES, self, other, True)

    def __truediv__(self, other):
        return arithmetic(OVER, self, other, False)

    def __rtruediv__(self, other):
        return arithmetic(OVER, self, other, True)

    def __pow__(self, other, modulo):
        return NotImplemented if modulo is not None else arithmetic(POWER, self, other, False)

    def __rpow__(self, other, modulo):
        return NotImplemented if modulo is not None else arithmetic(POWER, self, other, True)

    def __neg__(self):
        return arithmetic(TIMES, self, -1.0, False)

    def __abs__(self):
        return apply(ABS, self)

    def __matmul__(self, other):
        """Return the dot with `other`, a Vector or list of Values: one node whose children are the pairs of elements."""
        other = as_list(other)
        if not isinstance(other, (Vector, list, tuple)):
            return NotImplemented
        return dot(as_vector(self), as_vector(other))

    def __rmatmul__(self, other):
        other = as_list(other)
        if not isinstance(other, (list, tuple)):
            return NotImplemented
        if is_nested(other):
            raise ValueError(f"{shape_of_list(other)} @ a Vector of {self.n}: write Matrix(rows) @ vector")
        return dot(as_vector(other), as_vector(self))

    def sum(self):
        """Return the sum, from 0 and left to right, one node."""
        return total(as_vector(self))

    def mean(self):
        """Return sum() / n."""
        return constant(MUL_CONSTANT, total(as_vector(self)), inverse(self.n))

    __array_ufunc__ = None          # numpy leaves operators to this class, it does not take it for a sequence

    def __array__(self, dtype=None, copy=None):
        """Raise TypeError: an array of numbers would leave the graph unseen."""
        raise no_array("Vector")


cdef object no_array(str what):
    return TypeError(f"numpy makes no array of a {what}, which would leave its graph: write np.array(x.data) for the numbers")


cdef int list_part(Vector part, const uint32_t *listed, Py_ssize_t step, uint32_t n) except -1:
    """Let the new `part` stand for `n` of the `listed` nodes, each `step` further."""
    cdef uint32_t *ids = room_for_ids(part, n)
    cdef Py_ssize_t i
    for i in range(n):
        ids[i] = listed[i * step]
    settle_listed(part, n)
    return 0


cdef list numbers_of(Vector v, uint32_t first, uint32_t n, bint grads):
    """Return the data, or the grads, of the `n` elements from `first` on."""
    cdef list values = [None] * n           # before ids are read, as in Value.children
    cdef Operands x = elements(v, first)
    cdef uint32_t i
    for i in range(n):
        values[i] = tape.grad[at(x, i)] if grads else tape.data[at(x, i)]
    return values


cdef str shown(Vector v, uint32_t first, uint32_t n, bint grads, bint whole):
    """Return the text of `n` elements from `first` on; of the first and last ones unless `whole`."""
    if whole or n <= 2 * EDGE:
        return repr(numbers_of(v, first, n, grads))
    head = repr(numbers_of(v, first, EDGE, grads))
    tail = repr(numbers_of(v, first + n - EDGE, EDGE, grads))
    return f"{head[:-1]}, ..., {tail[1:]}"


cdef list floats(object given, str what):
    """Return what `given`, no Vector or Matrix, yields, as a list of floats."""
    given = as_list(given)
    if isinstance(given, Handle) or not hasattr(given, "__iter__"):
        raise TypeError(f"{what} needs a list of numbers, got {type(given).__name__}")
    return as_numbers(given, what)


cdef list numbers(object given, uint32_t n):
    """Return `given` as a list of `n` floats."""
    cdef list values = floats(given, "a Vector's data or grad")
    if <size_t>len(values) != n:
        raise ValueError(f"a Vector of {n} needs {n} numbers, got {len(values)}")
    return values


cdef int copy_numbers(Vector v, object buffer, bint grads) except -1:
    """Copy the data, or the grads, into a buffer of doubles or of floats, without an object for each."""
    cdef Py_buffer view
    cdef Operands x
    cdef const double *numbers
    cdef uint32_t i
    cdef bint wide
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    except (BufferError, TypeError, ValueError) as error:
        raise TypeError(f"a writable, contiguous buffer of doubles or floats needed, got {type(buffer).__name__}: "
                        f"{error}") from None
    try:
        if view.format == NULL or view.format[0] not in b"df" or view.format[1] != 0:
            got = "bytes" if view.format == NULL else repr(view.format.decode())
            raise TypeError(f"a buffer of doubles ('d') or floats ('f') needed, got one of {got}")
        wide = view.format[0] == b"d"
        if view.len // view.itemsize != v.n:
            raise ValueError(f"{v.n} elements need a buffer of as many numbers, got {view.len // view.itemsize}")
        x = elements(v, 0)
        numbers = tape.grad if grads else tape.data
        if wide and x.listed == NULL:
            memcpy(view.buf, numbers + x.start, v.n * sizeof(double))
        else:
            for i in range(v.n):
                if wide:
                    (<double *>view.buf)[i] = numbers[at(x, i)]
                else:
                    (<float *>view.buf)[i] = <float>numbers[at(x, i)]
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int write_leaves(Operands x, list values) except -1:
    cdef uint32_t i
    for i in range(<uint32_t>len(values)):
        write_leaf(tape, at(x, i), values[i])
    return 0


cdef void write_grads(Operands x, list values) noexcept:
    cdef uint32_t i
    for i in range(<uint32_t>len(values)):
        tape.grad[at(x, i)] = values[i]
