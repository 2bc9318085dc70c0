"""A network of the test's own, whose cables can be cut, and lose and delay what they carry.

A machine is a network namespace of Linux with one TUN device. All devices hang at one switch, a
thread that reads every packet and loses it, or passes it on a while later. So the TCP at both
ends is the kernel's own, and so is everything that it does about a bad network. Nothing of it is
seen outside: the addresses exist in the namespaces only.

Needs root. Where the kernel has the queueing discipline netem, that could do the same.
"""

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

CLONE_NEWNET: Final = 0x40000000
TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
"""From linux/sched.h and linux/if_tun.h."""
LARGEST_PACKET: Final = 65_536
DESTINATION: Final = slice(16, 20)
"""Of an IPv4 header."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _Machine:
    address: str
    namespace: int
    device: int
    """The descriptor at which the switch reads what the machine sends."""


class Network:
    """Some machines, by name, and the weather between them. A context."""

    def __init__(self, *names: str) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._machines: dict[str, _Machine] = {}
        for number, name in enumerate(names, start=1):
            self._machines[name] = self._plug_in(f"10.99.0.{number}")
        self._ports = {
            bytes(map(int, m.address.split("."))): (name, m.device)
            for name, m in self._machines.items()
        }
        self._cut: set[str] = set()
        self.loss = 0.0
        """The share of packets that get lost."""
        self.delay_s = 0.0
        """How long a packet is under way, either way."""
        self.lost = self.carried = 0
        self._random = random.Random(1)
        self._stopping = threading.Event()
        self._switch = threading.Thread(target=self._run, name="switch")

    def __enter__(self) -> "Network":
        self._switch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._switch.join()
        for machine in self._machines.values():
            os.close(machine.device)
            os.close(machine.namespace)
        os.close(self._home)

    def address(self, name: str) -> str:
        """Where the others find a machine."""
        return self._machines[name].address

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """The calling thread, the sockets that it opens and the processes that it starts are at
        that machine, whose own loopback is not this one's."""
        _enter(self._machines[name].namespace)
        try:
            yield
        finally:
            _enter(self._home)

    @contextmanager
    def cut(self, name: str) -> Iterator[None]:
        """Without a word to either end, nothing gets to or from a machine."""
        self._cut.add(name)
        try:
            yield
        finally:
            self._cut.discard(name)

    def _plug_in(self, address: str) -> _Machine:
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no network namespace can be made")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"cable", IFF_TUN | IFF_NO_PI))
            for command in (
                "ip link set lo up",
                f"ip address add {address}/24 dev cable",
                "ip link set cable up",
            ):
                subprocess.run(command.split(), check=True)
            return _Machine(address, os.open("/proc/thread-self/ns/net", os.O_RDONLY), device)
        finally:
            _enter(self._home)

    def _run(self) -> None:
        under_way: list[tuple[float, int, str, int, bytes]] = []
        with selectors.DefaultSelector() as selector:
            for name, machine in self._machines.items():
                selector.register(machine.device, selectors.EVENT_READ, name)
            while not self._stopping.is_set():
                pause = under_way[0][0] - time.monotonic() if under_way else 0.1
                for key, _ in selector.select(min(0.1, max(0.0, pause))):
                    self._take_in(key.data, key.fd, under_way)
                while under_way and under_way[0][0] <= time.monotonic():
                    *_, name, device, packet = heapq.heappop(under_way)
                    # What a full device does not take is lost, as on any network.
                    with suppress(BlockingIOError):
                        if name not in self._cut:
                            os.write(device, packet)

    def _take_in(
        self, sender: str, device: int, under_way: list[tuple[float, int, str, int, bytes]]
    ) -> None:
        due = time.monotonic() + self.delay_s
        with suppress(BlockingIOError):
            while packet := os.read(device, LARGEST_PACKET):
                receiver = self._ports.get(packet[DESTINATION])
                if receiver is None or sender in self._cut:
                    continue
                if self._random.random() < self.loss:
                    self.lost += 1
                    continue
                self.carried += 1
                heapq.heappush(under_way, (due, self.carried, *receiver, packet))


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")
