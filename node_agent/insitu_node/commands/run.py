"""``insitu-node run``: dials the gateways and answers until it is told to stop. The work is in ``service``."""

from __future__ import annotations

from insitu_node.commands.options import ConfigOption


def run(config: ConfigOption) -> None:
    """Run the node: dial the gateways, answer requests, until SIGTERM or Ctrl-C.

    \b
    Example: insitu-node run --config node.toml
    """
    from insitu_node.service import serve  # planner, databases and gRPC: not needed to answer --help

    serve(config)
