"""Adapters that keep rows, bytes and the indexes derived from them.

A user names one in ``ragworks.toml``; an implementer starts at ``Rows`` and ``JobQueue`` of ``storage_protocols.py``.
"""
