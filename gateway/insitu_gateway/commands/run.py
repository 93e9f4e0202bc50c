"""``insitu-gateway run``: the gateway as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insitu_gateway.commands.arguments import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from insitu_gateway.config import Config

_SWITCH_S = 0.0005
"""How long planning in a thread may keep the event loop from its next step; Python's own default is ten times that."""


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the gateway until it is told to stop (SIGTERM or Ctrl-C). Logs JSON lines to standard error.

    \b
    Example:
      insitu-gateway run --config gateway.toml
    """
    import asyncio
    import sys

    from insitu_gateway.config import load_config
    from insitu_gateway.log import configure

    loaded = load_config(config)
    configure()
    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(_serve(loaded))


async def _serve(config: Config) -> None:
    import asyncio
    import signal
    from datetime import UTC, datetime

    from insitu_gateway.server import Gateway

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Gateway(config, clock=lambda: datetime.now(UTC)):
        await stop.wait()
