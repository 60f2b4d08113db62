"""The ledger of many replicas in one PostgreSQL; needs the extra `postgres`."""
