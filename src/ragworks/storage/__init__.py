"""Adapters that keep rows, bytes and the indexes derived from them.

A user names one in ``ragworks.toml``; an implementer starts at ``storage_protocols.Rows`` and ``storage_protocols.JobQueue``.
"""
