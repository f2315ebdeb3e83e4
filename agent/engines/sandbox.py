"""What a worker process is denied: the parent's secrets, the network, outliving its parent, core dumps.

`environment` is for the parent, `confine` is the first thing that the child does. Everything here needs no privilege;
what the platform refuses is said in the returned text and shown in status, never ignored silently.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_ALLOWED = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH"})
_ALLOWED_PREFIXES = ("OMP_", "GOMP_", "CUDA_VISIBLE_")

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE_ADJ = 500  # the kernel shall end a worker, which is made again, and not the daemon


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker gets: an allow-list, so that API keys and tokens stay out.

    The package's own folder is added to PYTHONPATH when it is not installed, so that the worker starts from any
    working directory.
    """
    allowed = {name: value for name, value in environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    root = Path(__file__).resolve().parents[2]
    if root.name not in {"site-packages", "dist-packages"}:
        inherited = [part for part in allowed.get("PYTHONPATH", "").split(os.pathsep) if part]
        allowed["PYTHONPATH"] = os.pathsep.join([str(root), *inherited])
    # Some tokenizer and speech libraries would look for missing files on a hub.
    allowed["HF_HUB_OFFLINE"] = "1"
    return allowed


def confine(parent: int, *, isolate: bool) -> str:
    """Confine this process; returns "" where the network is gone, else why it is still there.

    Must run before any thread starts (a user namespace is refused to a process with threads).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A service manager signals the whole group: the parent drains, and closes the socket when a worker may go.
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    network = _leave_network() if isolate else "switched off by [pool] isolate"
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # After the namespaces: a change of credentials clears it.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)  # the parent was gone before the request above
    return network


def _leave_network() -> str:
    if sys.platform != "linux":
        return f"not available on {sys.platform}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:  # a privileged process keeps its user namespace, and with it its files
        return ""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"the kernel refuses namespaces ({os.strerror(ctypes.get_errno())})"
    # Without a mapping the files still open, but the process would see itself as "nobody".
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return ""
