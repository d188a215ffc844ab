"""Machine code that CPython calls: builtin function objects, object layouts, the buffer slot."""
