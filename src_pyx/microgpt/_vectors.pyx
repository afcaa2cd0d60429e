"""Which variant of the long loops runs: the widest that this processor has."""

cdef extern from "vectors.h":
    const vectors *variant(int i)


def variants():
    """Return the names of the variants that this processor can run, the narrowest first."""
    cdef list names = []
    while variant(<int>len(names)) != NULL:
        names.append(variant(<int>len(names)).name.decode())
    return names


def choose(name):
    """Let the loops run in the variant `name`. The numbers are the same in each."""
    global chosen
    cdef list names = variants()
    if name not in names:
        raise ValueError(f"the variants on this processor are {', '.join(names)}, got {name!r}")
    chosen = variant(<int>names.index(name))


def chosen_variant():
    """Return the name of the variant in use."""
    return chosen.name.decode()


choose(variants()[-1])
