"""Split rows before anybody learns from them: whole clusters of alike prompts to either side.

Which side a cluster falls on follows from its prompts and a seed alone, so that the same prompt
falls on the same side in every snapshot of a feed whose clusters are the same.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gateway.dataset.assembly.alike import Keys, Labels, mixed


def held_out(
    labels: Labels, prompts: Keys, share: Fraction, seed: int
) -> tuple[NDArray[np.bool_], int, int]:
    """Return which rows are held out, and how many clusters are to train on and held out.

    *labels* names for each row the first one of its cluster, *prompts* digests its prompt. Of
    two clusters or more at least one stands on each side; of one, none is held out.
    """
    roots, cluster_of = np.unique(labels, return_inverse=True)
    least = np.full(len(roots), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, cluster_of, prompts)
    drawn = mixed(least ^ mixed(np.array([seed & (1 << 64) - 1], np.uint64) + np.uint64(1)))
    order = np.lexsort((roots, drawn))
    bound = min((share.numerator << 64) // share.denominator, (1 << 64) - 1)
    wanted = int(np.count_nonzero(drawn < np.uint64(bound)))
    wanted = min(max(wanted, 1), len(roots) - 1)
    apart = np.zeros(len(roots), np.bool_)
    apart[order[:wanted]] = True
    return apart[cluster_of], len(roots) - wanted, wanted
