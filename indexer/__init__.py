"""Floor 1: from a folder of pictures to a searchable collection, and the command line that rebuilds it.

Rule: steps are strangers to each other; a conductor introduces them.
"""
