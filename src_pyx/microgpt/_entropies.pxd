# Cross entropies at the end of a graph.

from libc.stdint cimport uint32_t

from microgpt._recall cimport Run
from microgpt._tape cimport Tape

cdef size_t take_cross_entropies(Tape *t, uint32_t loss, uint32_t count, Run *order, size_t *nodes) noexcept nogil
