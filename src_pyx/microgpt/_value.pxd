# What Python holds of one node.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport Handle

cdef class Value(Handle):
    pass

cdef uint32_t node(Value value) except 0
cdef Value value_of(uint32_t id)
cdef Value unary(uint8_t op, Value x)
cdef Value constant(uint8_t op, Value x, double k)
cdef Value binary(uint8_t op, Value x, Value y)
cdef double inverse(double k) except? -1.0
cdef double as_number(object x, str what) except? -1.0
cdef bint number(object x, double *out) except -1
