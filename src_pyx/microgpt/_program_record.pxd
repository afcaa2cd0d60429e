# The graph of a Program: what its outputs reach, as the reference has it.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:                          # ops of a graph beside those of the tape
    LARGER = 60                     # b if that is larger, else a: a link of the maximum of a softmax, without a gradient
    SHIFT = 61                      # a - b, b a number for backward

cdef class Graph:
    # Leaves come first: inputs, parameters, constants. The others, in the order of the tape, have two operands at most: a sum or
    # dot is a chain of additions here.
    cdef uint32_t inputs
    cdef uint32_t parameters
    cdef uint32_t constants
    cdef uint32_t leaves            # all three
    cdef uint32_t nodes             # leaves included
    cdef uint32_t outputs
    cdef uint8_t *op                # of computed node leaves + i; these arrays are owned
    cdef uint32_t *a
    cdef uint32_t *b
    cdef double *k                  # the number of an op that has one
    cdef double *constant
    cdef uint32_t *output           # nodes
    cdef readonly list parameter_data   # when recorded

    cdef int make_room(self) except -1


cdef inline uint32_t put_node(Graph g, uint8_t op, uint32_t a, uint32_t b, double k) noexcept nogil:
    """Write the next computed node into room made before."""
    cdef uint32_t i = g.nodes - g.leaves
    g.op[i] = op
    g.a[i] = a
    g.b[i] = b
    g.k[i] = k
    g.nodes += 1
    return g.nodes - 1
