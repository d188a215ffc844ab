"""What compiled code needs while it runs, and what Python calls it by."""
