"""Decoding and validation: from a module's bytes to validated instructions. No machine code."""
