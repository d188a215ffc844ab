"""Machine code that CPython calls: function objects, the layout of their arguments, buffers."""
