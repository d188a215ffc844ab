"""Instances, calls between Python and compiled code, interrupts: all that runs with the code."""
