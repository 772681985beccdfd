"""The HTTP face of ragworks. Users start at ``server.serve``; implementers add a route to the module of its theme."""
