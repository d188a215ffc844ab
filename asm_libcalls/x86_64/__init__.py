"""The x86-64 backend: one file per libcall family in PeachPy, and the code around the libcalls.

Importing this package imports nothing else; PeachPy is imported only where code is assembled.
"""
