"""A query index over the ledger's leaves: what people and gates search by.

It holds nothing that the leaves don't say, and is made again from them whenever it is missing,
damaged, or belongs to another ledger. Whoever can write it can hide a statement from a search,
not from the ledger.

It is divided by time, into stretches of leaves in a row (`places.py`): of each it keeps its
first and last instant and, for each word that can be searched by, the places that have it.
"""
