"""Where bytes are kept: the ledger's leaves, contents, the index, access keys."""
