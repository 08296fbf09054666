"""Readers of published data sets, in the very files in which they are handed out.

Every reader has `read(path, ...)`, which yields (name, Recording) one after another; it raises
FileNotFoundError for what is missing, and ValueError for what is damaged or laid out otherwise.
Only this package opens other people's pickles, and only through `unpickle`.
"""
