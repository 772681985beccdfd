"""The control plane: starts, watches and stops services, without knowing what they do.

A user sees it in ``ragworks status``; an implementer starts at ``orchestrator.py``.
"""
