"""`python -m indexer`: the command line without the page."""

from indexer.cli import cli

if __name__ == "__main__":
    cli(prog_name="seer")
