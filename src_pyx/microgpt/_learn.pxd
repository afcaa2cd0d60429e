# Learning the shape of a graph.

from libc.stdint cimport uint32_t

from microgpt._recall cimport Run
from microgpt._tape cimport Tape

cdef void learn(Tape *t, uint32_t start, uint32_t n, size_t size, const Run *order, size_t runs) noexcept
