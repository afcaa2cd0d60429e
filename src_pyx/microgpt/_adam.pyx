"""The compiled step of Adam."""

from cpython cimport array
from cpython.object cimport PyObject
from libc.math cimport pow, sqrt
from libc.stdint cimport uint32_t, uint64_t

from microgpt._matrix cimport Matrix
from microgpt._runs cimport Operands, at
from microgpt._tape cimport LEAF, MATRIX, Handle, new_stamp, op_at, references, stamp_run, tape
from microgpt._value cimport value_of
from microgpt._vector cimport Vector, elements
from microgpt._vectors cimport adam, chosen


def check_leaves(Vector parameters not None):
    """Raise ValueError unless every parameter is a leaf."""
    cdef Operands x = elements(parameters, 0)
    for i in range(parameters.n):
        if op_at(tape, at(x, i)) != LEAF:
            raise ValueError(f"Adam can change leaves only, parameter {i} is computed")


def holders(Vector parameters not None):
    """Return what Python holds of the parameters, in their order: a Matrix for all of its elements, a Value for any other leaf.

    Errors: TypeError if a Matrix is not there as a whole, its elements one after the other.
    Cost: one look at each node of the tape.
    """
    cdef list matrices = live_matrices()
    cdef list found = []
    cdef Matrix matrix
    cdef uint32_t i = 0
    cdef uint32_t id, k, n
    while i < parameters.n:
        id = at(elements(parameters, 0), i)
        matrix = matrix_around(matrices, id)
        if matrix is None:
            found.append(value_of(id))
            i += 1
            continue
        n = matrix.rows * matrix.columns
        for k in range(n):
            if i + k >= parameters.n or at(elements(parameters, 0), i + k) != matrix.start + k:
                raise TypeError("an Adam of some elements of a Matrix cannot be copied or pickled, they would no longer be the "
                                "Matrix's: give it whole matrices, or copy its state_dict()")
        found.append(matrix)
        i += n
    return found


cdef list live_matrices():
    """Return every Matrix, in the order of the nodes."""
    cdef list matrices = []
    cdef PyObject *handle
    cdef uint32_t id
    for id in range(1, tape.top):
        handle = tape.handle[id]
        while handle != NULL:
            if (<Handle>handle).kind == MATRIX and references(handle) > 0:      # without references: about to go
                matrices.append(<object>handle)
            handle = (<Handle>handle).next
    return matrices


cdef Matrix matrix_around(list matrices, uint32_t id):
    """Return the one of `matrices` that holds node `id`, or None."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = len(matrices)
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if (<Matrix>matrices[middle]).id < id:
            low = middle + 1
        else:
            high = middle
    if low < len(matrices) and (<Matrix>matrices[low]).start <= id:
        return <Matrix>matrices[low]
    return None


def grad_norm(Vector parameters not None):
    """Return the root of the sum of the squared gradients, added left to right."""
    cdef Operands x = elements(parameters, 0)
    cdef double total = 0
    cdef double g
    cdef uint32_t i
    for i in range(parameters.n):
        g = tape.grad[at(x, i)]
        total += g * g
    return sqrt(total)


def scale_grad(Vector parameters not None, double scale):
    """Multiply every gradient by `scale`."""
    cdef Operands x = elements(parameters, 0)
    cdef uint32_t i
    for i in range(parameters.n):
        tape.grad[at(x, i)] *= scale


def adam_step(Vector parameters not None, array.array m not None, array.array v not None, double learning_rate, double beta1,
              double beta2, double eps, double step, double weight_decay):
    """Move every parameter against its gradient and set the gradient to 0.

    `m`, `v`: the running means of gradient and squared gradient, changed in place. `step`: the number of this one, from 1.
    `weight_decay`: each parameter first loses learning_rate * weight_decay of itself.
    Errors: OverflowError if the square of a gradient is too large for a float; ValueError unless `m` and `v` hold a double for
    each parameter. Nothing has changed then.
    """
    cdef adam numbers = adam(learning_rate, beta1, beta2, eps, 1 - pow(beta1, step), 1 - pow(beta2, step))
    cdef Operands x
    cdef uint32_t n = parameters.n
    cdef uint32_t i = 0
    cdef uint32_t length, k
    cdef uint64_t stamp
    cdef double decay = learning_rate * weight_decay
    check_moments(m, n)
    check_moments(v, n)
    x = elements(parameters, 0)
    while i < n:
        length = run_length(x, i, n)
        k = <uint32_t>chosen.find_huge(&tape.grad[at(x, i)], length)
        if k < length:
            raise OverflowError(f"the square of a gradient is too large: parameter {i + k}, {tape.grad[at(x, i + k)]!r}")
        i += length
    stamp = new_stamp(tape)
    i = 0
    while i < n:
        length = run_length(x, i, n)
        if weight_decay != 0:  # a subtraction of 0 would make 0.0 of -0.0
            for k in range(length):
                tape.data[at(x, i) + k] -= decay * tape.data[at(x, i) + k]
        chosen.adam_run(&tape.data[at(x, i)], &tape.grad[at(x, i)], &m.data.as_doubles[i], &v.data.as_doubles[i], length,
                        &numbers)
        stamp_run(tape, at(x, i), length, stamp)
        i += length


cdef int check_moments(array.array moments, uint32_t n) except -1:
    if moments.ob_descr.typecode != c"d" or <size_t>len(moments) != n:
        raise ValueError(f"m and v need {n} doubles, got {len(moments)} of typecode {moments.typecode!r}")
    return 0


cdef uint32_t run_length(Operands x, uint32_t i, uint32_t n) noexcept nogil:
    """Number of elements from `i` on whose nodes follow each other."""
    cdef uint32_t length = 1
    if x.listed == NULL:
        return n - i
    while i + length < n and x.listed[i + length] == x.listed[i] + length:
        length += 1
    return length
