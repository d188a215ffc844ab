"""From the code of functions to code that runs: links, unwind information, listings."""
