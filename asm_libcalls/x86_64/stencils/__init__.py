"""Copy and patch: machine code assembled once as stencils, composed at run time without PeachPy.

A *stencil* is a few instructions with *holes* (:class:`asm_libcalls.emitter.image.Hole`) of four
bytes each. A hole is for a number known only when the stencil is used (a displacement, a count), or
for the distance to a slot or another stencil. Stencils are in an image beside its routines, and so
in its file; they are copied, never run there. ``emitter/stencils.py`` reads and composes them.

Source of the name: Xu and Kjolstad, "Copy-and-Patch Compilation", OOPSLA 2021.
"""
