# Runs of nodes, and the emitters that put one node for each of their elements.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport Handle, Tape

cdef class Vector(Handle):
    cdef uint32_t n                 # number of elements, at least 1
    cdef uint32_t start             # first node of a contiguous run
    cdef uint32_t *listed           # ids of the elements where they are no run, owned by the Vector; NULL for a run

cdef class Matrix(Handle):
    cdef uint32_t start             # first leaf; row after row
    cdef uint32_t rows
    cdef uint32_t columns
    cdef list rows_of(self, object given)

cdef struct Operands:
    uint32_t start
    uint32_t step                   # 1 for a run, 0 for one node used again and again
    uint32_t *listed                # or the ids one by one

cdef inline Operands run(uint32_t start) noexcept nogil:
    return Operands(start, 1, NULL)

cdef inline Operands same(uint32_t id) noexcept nogil:
    return Operands(id, 0, NULL)

cdef inline Operands elements(Vector v, uint32_t first) noexcept nogil:
    """The elements of `v` from number `first` on. Void after the next reserve."""
    if v.listed == NULL:
        return Operands(v.start + first, 1, NULL)
    return Operands(0, 0, &v.listed[first])

cdef inline uint32_t at(Operands x, uint32_t i) noexcept nogil:
    return x.start + i * x.step if x.listed == NULL else x.listed[i]

cdef void settle(Vector v, uint32_t start, uint32_t n) noexcept
cdef Vector as_vector(object x)
cdef object apply(uint8_t op, object x)

# These put nodes into room reserved before and return the id of the node, or of the first of the run.
cdef uint32_t put_unary_run(uint8_t op, Operands x, uint32_t n) except 0
cdef uint32_t put_constant_run(uint8_t op, Operands x, uint32_t n, double k) except 0
cdef uint32_t put_pair_run(uint8_t op, Operands x, Operands y, uint32_t n) except 0
cdef uint32_t put_sum(Operands x, uint32_t n) noexcept
cdef uint32_t put_dot(Operands x, Operands y, uint32_t n) noexcept
