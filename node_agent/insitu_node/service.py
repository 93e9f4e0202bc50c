"""The running node: opens everything, loads the mechanisms, keeps a stream to each gateway, stops on a signal.

Hello is said only when the node can answer at full speed, OpenDP loaded and databases open. On SIGTERM the statements
that run are interrupted, their charges stay reserved, and the gateway sends the requests again to whoever comes back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog
from insitu_privacy.errors import InsituError

from insitu_node import __version__
from insitu_node.audit import counts_still
from insitu_node.config import load_config
from insitu_node.connection import Dialer, Renewal
from insitu_node.hooks import hook_from, no_hook
from insitu_node.log import log_to_stderr
from insitu_node.noise import warm_up
from insitu_node.runtime import Node, open_node, utc_now

_LOG_SECONDS = 60.0
_KEYS_LOOK_S = 1.0
_log = structlog.get_logger("insitu.node")


def serve(path: Path) -> None:
    """Runs the node of a configuration file until it is stopped. Raises ConfigInvalid where it cannot start."""
    config = load_config(path)
    hook = hook_from(os.environ)
    log_to_stderr(config.node_id)
    if hook is not no_hook:
        _log.warning("test hook is on: this process will kill itself", at=os.environ["INSITU_TEST_CRASH_AT"])
    loading = threading.Thread(target=warm_up, name="warm-up", daemon=True)
    loading.start()  # beside the opening of databases: both take a moment
    with open_node(config, hook=hook) as node:
        loading.join()
        asyncio.run(_serve(node))
    _log.info("node stopped")


async def _keep_log(node: Node, stopping: asyncio.Event) -> None:
    """Seals the audit log when it is due, and drops the days that are too old."""
    day = utc_now().date()
    while not stopping.is_set():
        try:
            if utc_now().date() != day:
                day = utc_now().date()
                await asyncio.to_thread(node.cycle.audit.agree, node.ledger)
            await asyncio.to_thread(_maintain, node)
        except InsituError as error:
            _log.error("audit log not maintained", error=error.line())
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _LOG_SECONDS)


def _maintain(node: Node) -> None:
    settings = node.config.audit
    node.log.maintain(
        seal_every=settings.seal_every,
        retention=settings.retention,
        keeps=lambda entry: counts_still(entry, utc_now()),
    )


async def _serve(node: Node) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    limits, changed = node.config.limits, Renewal()
    watching = asyncio.create_task(_watch_keys(node, changed))
    with ThreadPoolExecutor(limits.workers, thread_name_prefix="worker") as workers:
        dialer = Dialer(
            keys=node.keys,
            changed=changed,
            software=f"insitu-node {__version__}",
            manifest=node.manifest,
            cycle=node.cycle,
            workers=workers,
            queue=limits.queue,
            answer_every_s=limits.answer_every_s,
            clock=utc_now,
            profiles=node.profiles,
        )
        _log.info("node ready", gateways=len(node.config.gateways), datasets=sorted(node.config.datasets))
        try:
            await asyncio.gather(
                *(dialer.keep(address, stopping) for address in node.config.gateways), _keep_log(node, stopping)
            )
        finally:
            watching.cancel()
            node.cycle.stop()
            workers.shutdown(wait=False, cancel_futures=True)


async def _watch_keys(node: Node, changed: Renewal) -> None:
    """Takes up new keys, certificates and pins as they are put in place (`insitu-node key install`, `trust`)."""
    while True:
        await asyncio.sleep(_KEYS_LOOK_S)
        before = node.keys.current
        try:
            if not node.keys.refresh():
                continue
            if node.keys.current.authority != before.authority:
                node.manifest.repin(node.keys.current.authority)
        except InsituError as error:
            _log.warning("keys not taken", error=error.line())
            continue
        _log.info("keys changed", key=node.keys.current.signing.thumbprint)
        await _renew_log(node)
        changed.tell()


async def _renew_log(node: Node) -> None:
    """The audit log says by whom it is sealed from here on."""
    try:
        await asyncio.to_thread(node.log.renew)
    except InsituError as error:
        _log.error("audit log not sealed with the new key", error=error.line())
