# Marks this folder as the package `microgpt` for Cython: a .pxd outside its package path is silently ignored (Cython #2452).
