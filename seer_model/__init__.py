"""Floor 0: pictures and tensors. RegNetY, its checkpoints, preprocessing, the backbone.

Rule: nothing here knows of folders to search, of SQL, of FAISS, or of a page.
"""
