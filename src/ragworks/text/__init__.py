"""Pure text work: bytes in, values out. Start at ``parse.py``; add a format with a ``parse_x.py`` and one row there."""
