"""The policies of the server against recorded traffic, on a virtual clock. ``ragworks simulate`` is the way in."""
