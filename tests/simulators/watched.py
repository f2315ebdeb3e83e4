"""`outpost serve` that writes down every address it reaches for: connections, datagrams, names looked up.

OUTPOST_TEST_REACHED names the file, one line each. The interpreter's audit events tell it, so no library can connect
unseen; workers are processes of their own, which have no network at all (tests/unit/test_sandbox.py).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

_REACHING = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
_reached = os.open(os.environ.pop("OUTPOST_TEST_REACHED"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _REACHING:
        return
    if event == "socket.getaddrinfo" and arguments[0] in (None, "127.0.0.1"):
        return  # the address that it listens on
    if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    os.write(_reached, f"{event} {arguments[-1] if event != 'socket.getaddrinfo' else arguments[0]!r}\n".encode())


if __name__ == "__main__":
    sys.addaudithook(_note)
    sys.argv[1:1] = ["serve"]
    from agent.cli import main

    main()
