# The long loops and the powers, compiled for several kinds of processor.

cdef extern from "kernels.h" nogil:
    struct adam:
        double learning_rate
        double beta1
        double beta2
        double eps
        double correction1
        double correction2

    struct vectors:                 # one variant
        const char *name
        double (*power)(double x, double k) noexcept nogil
        void (*products)(double *y, const double *w, const double *x, size_t rows, size_t n,
                         size_t count) noexcept nogil
        void (*dot_rows_partials)(double *gw, double *gx, const double *w, const double *x, const double *g, size_t rows,
                                  size_t n) noexcept nogil
        void (*add_rows)(double *to, const double *x, const double *g, size_t step_i, size_t step_k, size_t count, size_t rows,
                         size_t n) noexcept nogil
        void (*add_row)(double *to, const double *x, const double *g, size_t rows, size_t n, size_t step) noexcept nogil
        void (*add_outer)(double *to, const double *x, const double *g, size_t rows, size_t n, size_t step) noexcept nogil
        void (*add_dots)(double *to, const double *x, const double *g, size_t rows, size_t n, size_t step) noexcept nogil
        size_t (*find_huge)(const double *x, size_t n) noexcept nogil
        void (*adam_run)(double *data, double *grad, double *m, double *v, size_t n, const adam *numbers) noexcept nogil

cdef const vectors *chosen          # the one in use
