"""What the machine code costs, side by side with what else there is.

A *suite* is a list of *cases*; a case times several *candidates* that do the same work, ours and
named peers, interleaved round by round, so that what disturbs the machine disturbs all of them. A
figure is a median of many rounds with its quartiles, and what is told is ratios of figures of one
run, never nanoseconds against another day's.

================ ==========================================================================
`timing`         candidates in, medians and ratios out
`peers`          what else is installed: cffi, numba, Wasmtime, the C library, a C compiler
`calls`          suite: one call from Python
`native`         suite: one call at the C address, from a loop in machine code
`memory`         suite: copying and filling linear memory; `native_loop` calls
`arrays`         suite: the ufuncs, from 1 to ten million elements
`toy_jit`        suite: WebAssembly programs, against Wasmtime and wasm3
`imports`        suite: what importing costs, in time and memory
`results`        what a run found, as JSON and as text
`compare`        two runs: what became slower
`plots`          SVG pictures of a run
`run`            all suites, from the command line's options
================ ==========================================================================
"""
