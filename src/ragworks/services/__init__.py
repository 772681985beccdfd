"""The data plane: one file per service, each with ``initialize``, ``shutdown``, ``check_health`` and its verbs.

A user meets them through ``app.App``; an implementer starts at ``protocols.Service``.
"""
