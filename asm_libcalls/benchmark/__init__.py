"""The benchmark: the cost of the machine code as a ratio to named peers in the same run.

A *suite* is a list of *cases*. A case times several *candidates* that do the same work, ours and
peers, interleaved round by round, so that a disturbance of the machine affects all of them. A
figure is a median of many rounds with its quartiles. Only figures of one run are compared.

================ ==========================================================================
`timing`         medians of candidates, and their ratios
`peers`          installed peers: cffi, numba, Wasmtime, the C library, a C compiler
`calls`          suite: one call from Python
`native`         suite: one call at the C address, from a loop in machine code
`memory`         suite: copying and filling linear memory; `native_loop` calls
`places`         suite: the same at fifteen places of the operands modulo 4096, least times
`references`     suite: tables, externref globals and growth
`arrays`         suite: the ufuncs, from 1 to ten million elements
`llvm`           suite: LLVM's libcalls at the C address
`toy_jit`        suite: WebAssembly programs, against Wasmtime and wasm3
`stores`         suite: threads in stores of their own, and in one, without the GIL
`imports`        suite: time and memory of importing
`results`        the results of a run, as JSON and as text
`run`            all suites, from the command line's options
================ ==========================================================================
"""
