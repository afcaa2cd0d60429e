"""no_grad: computing without a graph. An op puts its nodes as ever; its results are then made leaves, which refer to nothing."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc

from microgpt._tape cimport make_leaves, tape

cdef extern from "Python.h":
    ctypedef struct PyThreadState
    PyThreadState *PyThreadState_Get()
    uint64_t PyThreadState_GetID(PyThreadState *thread)     # unlike the number of a thread it is never given again

cdef uint64_t *threads              # one for each no_grad() that was entered, tape.no_grad of them; owner: this module
cdef size_t room


cdef void cut_off(uint32_t start) noexcept:
    cdef uint64_t this = PyThreadState_GetID(PyThreadState_Get())
    cdef uint32_t i
    for i in range(tape.no_grad):
        if threads[i] == this:
            break
    else:
        return
    make_leaves(tape, start)


cdef class no_grad:
    """A context in which results are leaves: `with no_grad(): y = f(x)`.

    Inside, ops and functions keep no operands, so nothing below stays in memory for y's sake, and no gradient passes through y.
    Other threads are not affected. Contexts can be nested.
    """

    cdef uint64_t thread            # that entered it, 0 for none

    def __enter__(self):
        global threads, room
        cdef uint64_t *moved
        if self.thread != 0:
            raise RuntimeError("this no_grad() was entered already: make another one, `with no_grad():`")
        if tape.no_grad == room:
            moved = <uint64_t *>realloc(threads, (room + 8) * sizeof(uint64_t))
            if moved == NULL:
                raise MemoryError("no room for another no_grad()")
            threads = moved
            room += 8
        self.thread = PyThreadState_GetID(PyThreadState_Get())
        threads[tape.no_grad] = self.thread
        tape.no_grad += 1
        return self

    def __exit__(self, kind, error, traceback):
        cdef uint32_t i = 0
        if self.thread == 0:
            raise RuntimeError("this no_grad() was not entered")
        while threads[i] != self.thread:
            i += 1
        tape.no_grad -= 1
        threads[i] = threads[tape.no_grad]
        self.thread = 0
        return False
