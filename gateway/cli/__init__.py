"""The command line: words in, one call down, an exit code out."""
