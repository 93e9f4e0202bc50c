"""Hosts that reach each other and nobody else: network namespaces on one machine, with every packet looked at.

Each host has an address, and a route for all other addresses to a hub that forwards nothing: what a program sends
astray goes out, is seen, and gets no answer. ``Network.contacts`` holds who spoke to whom, on the hosts' loopback too.
Needs root and iproute2's ``ip``; ``reason_why_not`` says what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL, _IPV4, _IPV6 = 3, 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_NEIGHBOURS = 58
"""ICMPv6: how a kernel itself learns its neighbours."""
_SYN, _ACK = 0x02, 0x10
_SUBNET, _SUBNET6 = "10.77.0", "fd77:"


@dataclass(frozen=True, slots=True, order=True)
class Contact:
    """One host spoke first to an address: the start of a TCP connection, or a packet of anything else."""

    host: str
    protocol: str
    address: str
    port: int


def reason_why_not() -> str | None:
    """Why no namespaces can be made here, or None where they can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if shutil.which("ip") is None:
        return "making network namespaces needs `ip`, of iproute2"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "this machine forbids network namespaces"


class Network:
    """Hosts by name. Close it with ``closed``."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hub = f"insitu-{os.getpid()}-hub"
        self.spaces = {host: f"insitu-{os.getpid()}-{host}" for host in hosts}
        self.addresses = {host: f"{_SUBNET}.{place}" for place, host in enumerate(hosts, 10)}
        self.contacts: set[Contact] = set()
        self._sockets: dict[socket.socket, str] = {}
        self._by_number: dict[int, socket.socket] = {}
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watched, daemon=True)

    def open(self) -> None:
        """Makes the namespaces and begins to watch."""
        _ip(f"netns add {self._hub}")
        _in(self._hub, "link add br0 type bridge", "link set br0 up", f"address add {_SUBNET}.1/24 dev br0")
        _in(self._hub, f"address add {_SUBNET6}:1/64 dev br0 nodad")
        for place, (host, space) in enumerate(self.spaces.items(), 10):
            _ip(f"netns add {space}")
            _ip(f"link add p{place} netns {self._hub} type veth peer name eth0 netns {space}")
            _in(self._hub, f"link set p{place} master br0 up")
            _in(space, "link set lo up", "link set eth0 up", f"address add {self.addresses[host]}/24 dev eth0")
            _in(space, f"address add {_SUBNET6}:{place}/64 dev eth0 nodad", f"route add default via {_SUBNET}.1")
            _in(space, f"-6 route add default via {_SUBNET6}:1")
        self._sockets = {self.run(host, _packets): host for host in self.spaces}
        self._by_number = {one.fileno(): one for one in self._sockets}
        self._watch.start()

    def close(self) -> None:
        """Ends the watch and removes the namespaces."""
        self._stop.set()
        if self._watch.ident is not None:
            self._watch.join()
        for one in self._sockets:
            one.close()
        for space in (*self.spaces.values(), self._hub):
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)

    def run(self, host: str, action: Callable[[], _T]) -> _T:
        """Runs something on a host: what processes it starts live there."""
        future: Future[_T] = Future()

        def there() -> None:
            try:
                _enter(self.spaces[host])
                future.set_result(action())
            except BaseException as error:  # raised where it was asked for
                future.set_exception(error)

        thread = threading.Thread(target=there)  # a namespace is a thread's own, and this one ends with it
        thread.start()
        thread.join()
        return future.result()

    def settle(self) -> None:
        """Until the watch has read all that was sent."""
        time.sleep(0.3)

    def listening(self, host: str) -> set[int]:
        """The TCP ports that anything on a host listens on."""
        tables = self.run(
            host, lambda: Path("/proc/thread-self/net/tcp").read_text() + Path("/proc/thread-self/net/tcp6").read_text()
        )
        lines = [line.split() for line in tables.splitlines()]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if len(line) > 3 and line[3] == "0A"}

    def _watched(self) -> None:
        """Only what a host sends counts: on loopback everything is both sent and received."""
        with selectors.DefaultSelector() as ready:
            for one, host in self._sockets.items():
                ready.register(one, selectors.EVENT_READ, host)
            while not self._stop.is_set():
                for key, _ in ready.select(0.1):
                    frame, (_, _, direction, *_) = self._by_number[key.fd].recvfrom(65535)
                    if direction == socket.PACKET_OUTGOING:
                        self.contacts |= {Contact(key.data, *found) for found in first_words(frame)}


def first_words(frame: bytes) -> Iterator[tuple[str, str, int]]:
    """Protocol, address and port of an Ethernet frame that is the first of a conversation, or may be."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4:
        header, protocol, to = 14 + 4 * (frame[14] & 15), frame[23], frame[30:34]
    elif kind == _IPV6:
        header, protocol, to = 54, frame[20], frame[38:54]
    else:
        return  # ARP: the kernel's own question for a neighbour
    if (protocol == _NEIGHBOURS and kind == _IPV6) or (kind == _IPV6 and protocol == 0):
        return
    address = str(ip_address(to))
    port = struct.unpack_from("!H", frame, header + 2)[0] if protocol in (_TCP, _UDP) else 0
    if protocol == _TCP and frame[header + 13] & (_SYN | _ACK) != _SYN:
        return
    yield {_TCP: "tcp", _UDP: "udp"}.get(protocol, str(protocol)), address, port


@contextlib.contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """Hosts for as long as the block runs."""
    made = Network(hosts)
    try:
        made.open()
        yield made
    finally:
        made.close()


def _packets() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))


def _enter(space: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", space).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _in(space: str, *lines: str) -> None:
    for line in lines:
        _ip(f"-n {space} {line}")


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)
