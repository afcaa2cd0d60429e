# The instructions of a program, before they have places.

from libc.stdint cimport uint32_t, uint64_t

from microgpt._program_record cimport Graph

cdef extern from "program.h" nogil:
    enum:
        CODE_MADD
        CODE_LARGER
        CODE_RECIPROCAL
        CODE_RECIPROCAL_PARTIAL
        CODE_SQUARE
        CODE_PARTIAL_A
        CODE_PARTIAL_B
        CODE_SECOND_AA
        CODE_SECOND_AB
        CODE_SECOND_BB
        CODE_SOFTMAX
        CODE_PROJECT
        MOST_LOGITS

cdef enum:
    LEAF_BIT = 1 << 31              # set in the name of a leaf; else it is the number of an instruction
    NONE = 0xffffffff

cdef struct Instruction:
    uint32_t op                     # as program.h has them
    uint32_t a                      # names of operands; those that the op does not use are as one that it does
    uint32_t b
    uint32_t c

cdef struct Logits:                 # of a softmax
    uint32_t first                  # of their names, among all such
    uint32_t n

cdef class Listing:
    cdef Graph g
    cdef uint32_t directions        # leaves after the inputs: the vector of a product with the Hessian
    cdef uint32_t fixed             # leaves that are no constants: inputs, directions, parameters
    cdef Instruction *code          # each after its operands; owned, as the others
    cdef uint32_t n
    cdef uint32_t room
    cdef Logits *logits             # of each softmax: the leaf named by its instruction is its number here
    cdef uint32_t softmaxes
    cdef uint32_t *logit            # names
    cdef uint32_t logit_names
    cdef uint32_t *found            # hash table of instructions, NONE for none: equal ones are one
    cdef uint32_t found_mask
    cdef double *constant           # leaves after the fixed ones
    cdef uint32_t constants
    cdef uint32_t constants_room
    cdef dict constant_of           # leaf of the bits of each constant
    cdef uint32_t *value            # what each node of the graph is
    cdef uint32_t *gradient         # and its gradient, NONE for 0
    cdef uint32_t *tangent          # and the derivative of its value along the direction, NONE for 0
    cdef uint32_t *gradient_tangent
    cdef unsigned char *active      # whether a node depends on an input, as gradients see it
    cdef list outputs

    cdef uint32_t number(self, double x) except? 0
    cdef int grow(self) except -1
    cdef uint32_t put_softmax(self, const uint32_t *nodes, uint32_t n) except? 0
    cdef uint32_t put(self, uint32_t op, uint32_t a, uint32_t b, uint32_t c) except? 0

cdef Listing list_values(Graph g)
cdef Listing list_gradient(Graph g, uint32_t output, bint all_nodes)
cdef Listing list_product(Graph g, uint32_t output)
