"""Building: candidates gathered, ruled on, sorted, split and written as a folder."""
