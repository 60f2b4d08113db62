"""Which rows may be learned from for one declaration, and why the others may not.

Every answer that reached a row is ruled on again, for the use that is declared now: under the
policies of today and under those of the day of the call, for the teacher itself and for every
teacher above it. The ruling is the maximum of them all; a row falls with the first ancestor
that does. There is no override.
"""
