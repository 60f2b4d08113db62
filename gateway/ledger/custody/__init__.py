"""Custody: all of the ledger checked, copied, moved to another store, and texts erased."""
