"""Pure decisions: (settings, snapshot, state, now) in, a decision with its reason out.

A user reads the reasons in logs; an implementer adds one function and one row to its table.
"""
