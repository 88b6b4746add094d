"""Child processes that never outlive the process that started them, and loopback ports for them."""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


def spawn(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a child in its own process group, so that Ctrl-C reaches it only through `stop`.

    On Linux the kernel also ends the child when the calling thread ends, however that happens.
    """
    die_with_parent = die_with if sys.platform == "linux" else None
    return subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def die_with(signal_number: int = signal.SIGTERM) -> None:
    """Ask the kernel to send this process `signal_number` when its parent ends (Linux, prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


def stop(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a child and its whole process group; kill it after `patience` seconds."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def a_port(text: str) -> int:
    """A port out of a command line. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports are 0 (any) to 65535")
    return int(text)


def listen(port: int, reuse: bool = False) -> socket.socket:
    """A socket on the loopback `port` (0: any). SystemExit, naming the port, when it cannot be had."""
    # The protocol has to be named: without it asyncio leaves Nagle on, and each answer waits 40 ms for an ACK.
    sock = socket.socket(proto=socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another process" if taken else f"cannot be had: {error.strerror}"
        other = port + 1 if 1024 <= port < 65_535 else 7071
        raise SystemExit(f"Port {port} {reason}. Choose another one: PORT={other}") from None
    return sock


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], patience: float = 20.0) -> None:
    """Return once `process` answers on `port`; RuntimeError when it ends or stays silent for `patience` seconds."""
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.02)
    what = f"ended with {process.returncode}" if process.returncode is not None else "does not listen"
    raise RuntimeError(f"{' '.join(map(str, process.args))} {what}")  # type: ignore[arg-type]  # we pass a sequence
