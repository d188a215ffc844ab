"""Copy and patch: pieces of machine code, assembled once, put together at run time without PeachPy.

A *stencil* is a few instructions with *holes* (:class:`asm_libcalls.emitter.image.Hole`): four
bytes each, that hold a number which is known only when the stencil is used (a displacement, a
count), or the distance to a slot or to another stencil. Stencils are in the image beside its
routines, and so in its file where there is one; nobody runs them there.

=================== =================================================================
`parts`             stencils read from an image, and put together
`stack_effects`     what a composition does to the stack, for unwinding
`assembling`        PeachPy instructions to stencils
=================== =================================================================

Source of the name: Xu and Kjolstad, "Copy-and-Patch Compilation", OOPSLA 2021.
"""
