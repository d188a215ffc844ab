"""The x86-64 backend: a file in PeachPy for each libcall family, and the code around the libcalls.

Importing this package imports nothing else; PeachPy is imported only where code is assembled.
"""
