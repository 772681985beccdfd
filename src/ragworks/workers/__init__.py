"""What the services stand on: start at ``jobs.py``, the loop over the queue.

``reading.py`` is what a worker process runs.
"""
