"""What each family of libcalls is checked with: edge cases, random cases and an oracle.

The third mirror of the families, beside ``x86_64`` and ``fallback``: ``checks/FAMILY.py`` has the
family's :class:`~asm_libcalls.checks.engine.Checker` under the name ``CHECKER``.
"""
