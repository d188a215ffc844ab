"""Checks of each family of libcalls: edge cases, random cases and an oracle.

The folder mirrors ``x86_64`` and ``fallback``: ``checks/FAMILY.py`` has the family's
:class:`~asm_libcalls.checks.engine.Checker` under the name ``CHECKER``.
"""
