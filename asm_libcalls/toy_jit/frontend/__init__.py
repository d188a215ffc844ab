"""From the bytes of a module to validated instructions; needs no machine code."""
