"""What a worker's environment may hold."""

from __future__ import annotations

import os
from pathlib import Path

from agent.engines.sandbox import environment


def test_secrets_stay_and_what_natives_need_goes():
    given = {
        "PATH": "/bin",
        "HOME": "/home/kiosk",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/opt/lib",
        "OMP_NUM_THREADS": "2",
        "OPENAI_API_KEY": "key",
        "OUTPOST_SERVER__TOKEN_FILE": "/run/token",
        "AWS_SECRET_ACCESS_KEY": "key",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "http_proxy": "http://user:password@proxy",
    }
    kept = environment(given)
    assert {name: kept[name] for name in given if name in kept} == {
        "PATH": "/bin",
        "HOME": "/home/kiosk",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/opt/lib",
        "OMP_NUM_THREADS": "2",
    }


def test_the_package_is_found_from_any_folder():
    import agent

    root = str(Path(agent.__file__).resolve().parents[1])
    path = environment({"PYTHONPATH": "/elsewhere"})["PYTHONPATH"].split(os.pathsep)
    assert path[-1] == "/elsewhere"
    assert root in path or root.endswith("site-packages")
