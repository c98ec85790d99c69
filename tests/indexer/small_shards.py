"""The `seer` command with output shards of a few files each, so that there are many of a few pictures."""

import sys

from indexer import cluster_pipeline
from indexer.cli import cli

if __name__ == "__main__":
    cluster_pipeline.SHARD_FILES = int(sys.argv.pop(1))
    cli()
