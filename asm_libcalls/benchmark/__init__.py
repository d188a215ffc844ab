"""Measuring: ratios between two ways to do one thing, interleaved in one run."""
