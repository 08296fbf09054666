"""Readers of published data sets, in the very files in which they are handed out.

Every module has `read(path, ...)`, which yields (file stem, Recording) one take at a time. Only
this package opens other people's pickles, and only through `unpickle`.
"""
