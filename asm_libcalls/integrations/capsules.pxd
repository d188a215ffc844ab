# The numeric libcalls for Cython's cimport; tests/test_integrations.py holds it against the table.
from libc.stdint cimport int64_t, uint64_t

cdef float f32_ceil(float x) noexcept nogil
cdef float f32_floor(float x) noexcept nogil
cdef float f32_trunc(float x) noexcept nogil
cdef float f32_nearest(float x) noexcept nogil
cdef double f64_ceil(double x) noexcept nogil
cdef double f64_floor(double x) noexcept nogil
cdef double f64_trunc(double x) noexcept nogil
cdef double f64_nearest(double x) noexcept nogil
cdef int64_t i64_ishl(int64_t x, int64_t count) noexcept nogil
cdef int64_t i64_sshr(int64_t x, int64_t count) noexcept nogil
cdef uint64_t i64_ushr(uint64_t x, uint64_t count) noexcept nogil
cdef int64_t i64_sdiv(int64_t dividend, int64_t divisor) noexcept nogil
cdef int64_t i64_srem(int64_t dividend, int64_t divisor) noexcept nogil
cdef uint64_t i64_udiv(uint64_t dividend, uint64_t divisor) noexcept nogil
cdef uint64_t i64_urem(uint64_t dividend, uint64_t divisor) noexcept nogil
