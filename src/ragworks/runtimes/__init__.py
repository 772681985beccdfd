"""Where work runs. ``processes.py`` keeps the child processes; ``child.py`` is what each of them runs."""
