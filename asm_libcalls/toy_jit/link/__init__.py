"""Machine code made ready to run: linking, loading, unwind information, listings."""
