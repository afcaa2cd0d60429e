# Instructions in their places, to be run.

from libc.stdint cimport uint32_t

cdef extern from "program.h" nogil:
    struct segment:
        uint32_t op
        uint32_t n

    ctypedef double (*other_op)(uint32_t op, double x, double y, double z, int *failed) noexcept nogil

    ctypedef const uint32_t *(*run_code)(const segment *segments, size_t count, const uint32_t *p, double *s, int *failed,
                                         other_op other) noexcept nogil

    struct runner:
        run_code one
        run_code four
        run_code eight

    const runner *runner_named(const char *name)

cdef class Code:
    cdef readonly uint32_t width    # rows at once
    cdef uint32_t variables         # first slots: inputs and directions
    cdef uint32_t parameters        # the next
    cdef uint32_t constants         # and the next
    cdef double *constant           # these arrays are owned
    cdef readonly uint32_t slots
    cdef segment *segments
    cdef size_t count               # of segments
    cdef uint32_t *places           # slots of each instruction's operands and result, times the width
    cdef size_t words               # of these
    cdef size_t n                   # instructions
    cdef uint32_t *output           # slots
    cdef readonly uint32_t outputs
    cdef void **spare               # workspaces that nobody uses
    cdef int spares

    cdef double *take_workspace(self) except NULL
    cdef void give_workspace(self, double *workspace) noexcept

cdef void *allocate(size_t n, size_t size) except NULL
