"""Adapters for Model, RemoteModel, PassageScorer and Generator.

A user chooses one by name in the settings; an implementer of another reads ``protocols.py``, then ``hashing.py``
(the smallest Model), ``openai_api.py`` (the only RemoteModel) or ``extractive.py`` (the only Generator), and runs
``tests/contract`` over it.
"""
