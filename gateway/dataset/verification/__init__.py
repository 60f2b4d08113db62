"""Verifying: what a folder says, held against its rows, its log and its policies."""
