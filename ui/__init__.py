"""Floor 2: the pages, and the composed `seer` command.

Rule: this floor knows `Collection` and `UserError`; it has no SQL, no tensors, no FAISS.
"""
