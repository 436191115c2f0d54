"""The command line: what it prints and writes, and its exit status."""
