"""Attributes that keep themselves: found as Python's own collector finds cycles, with the tape in the middle.

`out._backward = f`, where f refers to `out`, is a cycle: node, attributes, function, Value, node. Python's collector cannot see
it, since it knows nothing of nodes. So where the tape collects, it looks for objects that are referred to from elsewhere than
from attributes. What these reach is needed, through objects and nodes alike. The attributes of all other nodes are garbage.

An object that is not looked into (a module, a class, all of them beyond some number) counts as needed, and so does what it refers
to: a cycle may stay then, but nothing is lost that somebody holds.
"""

from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from libc.stdint cimport UINT32_MAX, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from microgpt cimport _tape
from microgpt._ops cimport operand, operand_count
from microgpt._tape cimport KEPT, LIVE, Handle, Tape, each_node, references, try_reallocate

cdef extern from *:
    """
    /* Call `visit` with each object that `o` refers to, as the collector does, if it is one to look into. Of a function that is
     * what it was made with: its globals are a module's. */
    static int visit_referents(PyObject *o, visitproc visit, void *arg)
    {
        if (PyFunction_Check(o)) {
            Py_VISIT(PyFunction_GET_CLOSURE(o));
            Py_VISIT(PyFunction_GET_DEFAULTS(o));
            Py_VISIT(PyFunction_GET_KW_DEFAULTS(o));
            Py_VISIT(((PyFunctionObject *)o)->func_dict);
        }
        else if (Py_TYPE(o)->tp_traverse != NULL && !PyType_Check(o) && !PyModule_Check(o))
            return Py_TYPE(o)->tp_traverse(o, visit, arg);
        return 0;
    }

    #define refers_to_objects(o) (Py_TYPE(o)->tp_traverse != NULL)
    """
    ctypedef int (*visitproc)(PyObject *o, void *arg) noexcept
    int visit_referents(PyObject *o, visitproc visit, void *arg) noexcept
    bint refers_to_objects(PyObject *o) noexcept

cdef extern from "kernels.h" nogil:
    bint FAULT(const char *guard)

cdef enum:
    # So that the cost stays in proportion to that of collecting. A function that refers to its node and to k others has k + 5.
    OBJECTS_A_NODE = 32             # how many are looked into
    OBJECTS_AT_LEAST = 1 << 16

cdef struct Met:                    # an object that attributes refer to, directly or not
    PyObject *object
    Py_ssize_t others               # references to it that were not met
    bint needed

cdef struct Search:
    Met *met                        # first the attributes of nodes, in the order of `owner`
    PyObject **owner                # the Values whose attributes they are
    uint32_t *table                 # where in `met` an object stands, plus 1, at a place told by its address
    uint32_t *objects               # those that are needed and not yet looked into
    uint32_t *nodes                 # those that are needed and whose operands are not yet
    size_t length                   # of `met`
    size_t room
    size_t places                   # of `table`, a power of two above twice the room
    size_t n_objects
    size_t n_nodes
    size_t owners

cdef Search search


cdef bint is_handle(PyObject *o) noexcept:
    return isinstance(<object>o, Handle)


cdef uint32_t *place_of(PyObject *o) noexcept:
    """Return the place in the table where `o` stands, or would stand."""
    cdef size_t i = (<size_t>o >> 4) * <size_t>0x9E3779B1
    i ^= i >> 16
    while True:
        i &= search.places - 1
        if search.table[i] == 0 or search.met[search.table[i] - 1].object == o:
            return &search.table[i]
        i += 1


cdef bint grow() noexcept:
    """Make room for twice as many objects. Return whether there was memory for it."""
    cdef size_t room = max(2 * search.room, <size_t>64)
    cdef uint32_t *table
    cdef size_t i
    if room > UINT32_MAX or not try_reallocate(<void **>&search.met, room, sizeof(Met)):
        return False
    table = <uint32_t *>calloc(4 * room, sizeof(uint32_t))          # owner: the search, in place of the old one
    if table == NULL:
        return False
    free(search.table)
    search.table = table
    search.places = 4 * room
    search.room = room
    for i in range(search.length):
        place_of(search.met[i].object)[0] = <uint32_t>(i + 1)
    return True


cdef bint meet(PyObject *o) noexcept:
    """Have `o` among the objects met, with one of its references. Return whether there was memory for it."""
    cdef uint32_t *place
    if search.length == search.room and not grow():
        return False
    place = place_of(o)
    if place[0] == 0:
        search.met[search.length] = Met(o, references(o), False)
        search.length += 1
        place[0] = <uint32_t>search.length
    search.met[place[0] - 1].others -= 1
    return True


cdef int meet_referent(PyObject *o, void *_) noexcept:
    if not refers_to_objects(o) and not is_handle(o):
        return 0
    return not meet(o)


cdef bint may_be_in_cycle(PyObject *attributes) noexcept:
    cdef Py_ssize_t i = 0
    cdef PyObject *value
    while PyDict_Next(<object>attributes, &i, NULL, &value):
        if refers_to_objects(value) or is_handle(value):
            return True
    return False


cdef bint meet_attributes(Tape *t) noexcept:
    """Begin with the attributes of all nodes that may be in a cycle. Return whether there are any, and memory for them."""
    cdef uint32_t i
    cdef PyObject *handle
    for i in range(1, t.top):
        handle = t.handle[i]
        while handle != NULL:
            if (<Handle>handle).attributes != NULL and may_be_in_cycle((<Handle>handle).attributes):
                if not meet((<Handle>handle).attributes) or not try_reallocate(
                        <void **>&search.owner, search.room, sizeof(void *)):
                    return False
                search.owner[search.owners] = handle
                search.owners += 1
            handle = (<Handle>handle).next
    return search.owners > 0


cdef bint meet_referents(Tape *t) noexcept:
    """Meet what these refer to, and what that refers to. Return whether there was memory for it."""
    cdef size_t most = OBJECTS_A_NODE * <size_t>t.top + OBJECTS_AT_LEAST
    cdef size_t i = 0
    while i < search.length and search.length < most:
        if visit_referents(search.met[i].object, meet_referent, NULL) != 0:
            return False
        i += 1
    return True


cdef void need_node(Tape *t, uint32_t id) noexcept:
    if not t.seen[id] & LIVE:
        t.seen[id] |= LIVE
        search.nodes[search.n_nodes] = id
        search.n_nodes += 1


cdef int need_object(PyObject *o, void *_) noexcept:
    """Note that `o`, if it was met, is needed."""
    cdef uint32_t i = place_of(o)[0]
    if i != 0 and not search.met[i - 1].needed:
        search.met[i - 1].needed = True
        search.objects[search.n_objects] = i - 1
        search.n_objects += 1
    return 0


cdef void need_what_others_hold(Tape *t) noexcept:
    """Begin with what is referred to from elsewhere."""
    cdef size_t k
    cdef uint32_t i, place
    cdef PyObject *handle
    for k in range(search.length):
        if search.met[k].others > 0 and not FAULT(b"cycles: objects that others hold"):
            need_object(search.met[k].object, NULL)
    for i in range(1, t.top):
        handle = t.handle[i]
        while handle != NULL:
            place = place_of(handle)[0]
            if (<Handle>handle).kind != KEPT and (place == 0 or search.met[place - 1].others > 0) and (
                    not FAULT(b"cycles: nodes that others hold")):
                each_node(handle, t, need_node)
            handle = (<Handle>handle).next


cdef void need_what_they_reach(Tape *t) noexcept:
    cdef PyObject *o
    cdef uint32_t id, k
    while search.n_objects > 0 or search.n_nodes > 0:
        if search.n_objects > 0:
            search.n_objects -= 1
            o = search.met[search.objects[search.n_objects]].object
            if is_handle(o) and (<Handle>o).id != 0 and not FAULT(b"cycles: Values reach their nodes"):
                each_node(o, t, need_node)
            if not FAULT(b"cycles: objects reach others"):
                visit_referents(o, need_object, NULL)
        else:
            search.n_nodes -= 1
            id = search.nodes[search.n_nodes]
            for k in range(0 if FAULT(b"cycles: nodes reach their operands") else operand_count(t, id)):
                need_node(t, operand(t, id, k))
            o = t.handle[id]
            while o != NULL:
                if (<Handle>o).attributes != NULL and not FAULT(b"cycles: nodes reach their attributes"):
                    need_object((<Handle>o).attributes, NULL)
                o = (<Handle>o).next


cdef void take_garbage(Tape *t) noexcept:
    """Take their attributes from the nodes that are not needed; `release` frees them."""
    cdef size_t k
    if not try_reallocate(<void **>&t.garbage, t.garbages + search.owners, sizeof(void *)):     # owner: the tape
        return
    for k in range(search.owners):
        if not t.seen[(<Handle>search.owner[k]).id] & LIVE:
            (<Handle>search.owner[k]).attributes = NULL
            t.garbage[t.garbages] = search.met[k].object
            t.garbages += 1


cdef void find_cycles(Tape *t) noexcept:
    """Drop the attributes that nothing but attributes holds. Without memory for the search nothing happens.

    Cost: some nanoseconds for each node and object, nothing where all attributes are plain (strings, numbers).
    """
    cdef uint32_t i
    memset(&search, 0, sizeof(Search))
    if meet_attributes(t) and meet_referents(t):
        search.objects = <uint32_t *>malloc(search.length * sizeof(uint32_t))
        search.nodes = <uint32_t *>malloc(t.top * sizeof(uint32_t))
        if search.objects != NULL and search.nodes != NULL:
            need_what_others_hold(t)
            need_what_they_reach(t)
            take_garbage(t)
            for i in range(1, t.top):
                t.garbage_nodes += not t.seen[i] & LIVE
                t.seen[i] &= ~LIVE
    free(search.met)                    # all of the search's own: nothing is kept for the next one
    free(search.owner)
    free(search.table)
    free(search.objects)
    free(search.nodes)


_tape.find_cycles = find_cycles
