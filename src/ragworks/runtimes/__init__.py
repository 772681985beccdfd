"""Where work runs. ``inline.py`` and ``replicas.py`` are the places where a replica lives, in this event loop or in a
process of its own; ``processes.py`` keeps the workers that read documents. ``spawning.py`` starts and ends every child.
"""
