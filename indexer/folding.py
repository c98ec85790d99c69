"""Near-copies in an answer, folded: each under the first neighbour that it is a copy of.

Rule: the order of an answer stays; what is folded stands under what came before it.
"""

from collections.abc import Sequence

import numpy as np

from indexer.answers import Neighbour


def fold(
    neighbours: Sequence[Neighbour], cosines: np.ndarray, at_least: float
) -> list[tuple[Neighbour, list[Neighbour]]]:
    """Neighbours with the near-copies that are folded under each.

    Args:
        cosines: (k, k) of the neighbours with each other.
        at_least: how similar near-copies are.
    """
    leaders: list[int] = []
    folded: dict[int, list[Neighbour]] = {}
    for place, neighbour in enumerate(neighbours):
        near = np.flatnonzero(cosines[leaders, place] >= at_least)
        if len(near):
            folded[leaders[near[0]]].append(neighbour)
        else:
            leaders.append(place)
            folded[place] = []
    return [(neighbours[leader], folded[leader]) for leader in leaders]
