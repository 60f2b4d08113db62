"""Transparency-log arithmetic on bytes: RFC 6962 trees, C2SP notes, checkpoints and proofs."""
