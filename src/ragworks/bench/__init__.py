"""Proofs that a user can run on their own machine and disk, against real server processes.

A user starts at ``ragworks bench``; an implementer at ``crash.py``, and asks of the server only what any client may.
"""
