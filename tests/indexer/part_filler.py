"""An index in parts of a few rows, made by a cluster; a process of its own: ADDRESS STORE ROWS DIMENSION PART_ROWS."""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from indexer import parts
from indexer.cluster import Cluster
from indexer.recipes import Recipe
from indexer.vectors import Store

if __name__ == "__main__":
    address, place, (rows, dimension, parts.PART_ROWS) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:])
    store = Store(place, dimension, rows)
    trained = parts.train_once(Recipe(reduced=dimension, lists=16), store, np.arange(0, rows, 2))
    with closing(Cluster(address, "cpu")) as cluster:
        parts.PartedIndex(store, trained, fill=cluster.fill_parts, on_note=print).fill()
