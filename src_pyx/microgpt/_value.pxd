# What Python holds of one node.

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport Handle

cdef class Value(Handle):
    pass

cdef uint32_t node(Value value) except 0
cdef dict attributes_of(Value value)
cdef dict written_on(uint32_t id)
cdef Value new_value()
cdef Value value_of(uint32_t id)
cdef Value unary(uint8_t op, Value x)
cdef Value constant(uint8_t op, Value x, double k)
cdef Value binary(uint8_t op, Value x, Value y)
cdef double inverse(double k) except? -1.0
cdef int refuse_zero(double denominator) except -1
cdef double as_number(object x, str what) except? -1.0
cdef list as_numbers(object given, str what)
cdef bint number_the_long_way(object x, double *out) except -1


cdef inline bint number(object x, double *out) except -1:
    """Whether `x` is a real number; `out` is then its value as a float."""
    if PyFloat_CheckExact(x):
        out[0] = PyFloat_AS_DOUBLE(x)
        return True
    return not isinstance(x, Value) and number_the_long_way(x, out)
