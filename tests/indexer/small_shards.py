"""The `seer` command with output shards of a few files each, so that there are many of a few pictures.

With DEADLY=NAME and DEATHS=FILE in the environment whoever decodes a shard with a file of that name dies of it, and
leaves a letter in FILE.
"""

import os
import sys
from pathlib import Path

from indexer import cluster, cluster_pipeline
from indexer.cli import cli
from indexer.cluster_stages import DecodeFiles, Row


class Deadly(DecodeFiles):
    """As a class of the main program it goes to the nodes with its attributes."""

    name, deaths = os.environ.get("DEADLY", ""), Path(os.environ.get("DEATHS", ""))

    def __call__(self, row: Row) -> Row:
        if self.name.encode() in row["payload"]:
            with self.deaths.open("a") as file:
                file.write("x")
            os._exit(1)
        return super().__call__(row)


if __name__ == "__main__":
    cluster_pipeline.SHARD_FILES = int(sys.argv.pop(1))
    if Deadly.name:
        cluster.DecodeFiles = Deadly
    cli()
