"""What neurons compute, put as the product of a matrix where that is certain to be the same."""

from cpython.object cimport PyObject, PyTypeObject
from libc.math cimport signbit
from libc.stdint cimport uint32_t

from microgpt._matrix cimport Matrix
from microgpt._runs cimport at
from microgpt._tape cimport LEAF, RELU, anchor, op_at, tape
from microgpt._value cimport Value, number, value_of
from microgpt._vector cimport Vector, apply, elements

cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject **ob_item


cdef class Parts:
    """What a neuron holds: bias, weights, and whether relu follows. Compiled, so that a layer reads them fast."""

    cdef public object b
    cdef public object w
    cdef public object nonlin


def activation(neuron, x):
    """Return the activation of `neuron`, which is of no class with a way of its own; None where a product is not certain."""
    cdef Vector inputs = after_one(x)
    return None if inputs is None else next(iter(products([neuron], 0, type(neuron), inputs)), None)


def activations(neurons, kind, x):
    """Return the activation of each of `neurons`: by products where these are certain for the class `kind`, else by calls."""
    cdef list all = list(neurons)
    cdef list values = []
    cdef list found
    cdef Vector inputs = after_one(x)
    while len(values) < len(all):
        found = [] if inputs is None else products(all, len(values), kind, inputs)
        values += found if found else [all[len(values)](x)]
    return values


cdef Vector after_one(object x):
    """Return [1, x...], to be multiplied with [b, w...].

    None unless `x` holds numbers and Values without operators of their own.
    """
    cdef list inputs = [1.0]
    cdef double k
    if not hasattr(x, "__len__"):
        return None
    inputs.extend(x)
    for item in inputs:
        if type(item) is not Value and not number(item, &k):
            return None
    return Vector(inputs)


cdef list products(list neurons, Py_ssize_t start, object kind, Vector inputs):
    """Return the activations of as many of `neurons`, from number `start` on, as one product is certain to give.

    Each is then of `kind`, and their [b, w...] are nodes that follow each other from neuron to neuron: rows of a matrix. No
    neuron has its bias below its weights or among its inputs, where the gradients of the two would be added in another sequence.
    """
    cdef object nonlin = None
    cdef uint32_t first = 0
    cdef uint32_t next = 0
    cdef uint32_t count = 0
    cdef Py_ssize_t i
    cdef Matrix matrix
    cdef Vector sums
    cdef uint32_t k
    for i in range(start, len(neurons)):
        if type(neurons[i]) is not kind:
            break
        if count > 0 and (<Parts>neurons[i]).nonlin is not nonlin:
            break
        if not is_row(<Parts>neurons[i], next, inputs.n):
            break
        if count == 0:
            nonlin = (<Parts>neurons[i]).nonlin
            first = next = (<Value>(<Parts>neurons[i]).b).id
        next += inputs.n
        count += 1
    if count == 0:
        return []
    if inputs.listed != NULL:       # a run begins with the 1, which is newer than any bias
        for i in range(inputs.n):
            if first <= inputs.listed[i] < next:
                return []
    matrix = Matrix.__new__(Matrix)
    matrix.start = first
    matrix.rows = count
    matrix.columns = inputs.n
    anchor(matrix, next - 1)
    sums = matrix.products(inputs, inputs.n)
    if nonlin:
        sums = apply(RELU, sums)
    return [value_of(at(elements(sums, 0), k)) for k in range(count)]


cdef bint is_row(Parts neuron, uint32_t first, uint32_t n) noexcept:
    """Whether the bias and weights of `neuron` are `n` nodes that follow each other, from `first` on if that is not 0."""
    cdef PyObject **weights
    cdef uint32_t k
    if type(neuron.b) is not Value or type(neuron.w) is not list or <size_t>len(<list>neuron.w) + 1 != n or n < 2:
        return False
    if first == 0:
        first = (<Value>neuron.b).id
    if first == 0 or (<Value>neuron.b).id != first:
        return False
    if tape.data[first] == 0 and signbit(tape.data[first]):
        return False                # a dot starts at 0.0, which added to -0.0 is 0.0
    weights = (<PyListObject *>neuron.w).ob_item
    for k in range(1, n):
        if weights[k - 1].ob_type != <PyTypeObject *>Value or (<Value>weights[k - 1]).id != first + k:
            return False
        if op_at(tape, first + k) != LEAF:     # it may have been computed with the bias
            return False
    return True
