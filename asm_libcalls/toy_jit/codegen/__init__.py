"""Code generation: from validated instructions to machine code, by copy and patch."""
