"""``insitu-node``: one module a command."""
