"""What pipelines hand in: parents resolved, rows held and files read."""
