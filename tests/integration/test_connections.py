"""Connections that are kept open between requests."""

from __future__ import annotations

import time

from tests.simulators.daemon import RunningDaemon

DELAYED_ACKNOWLEDGEMENT_S = 0.04


def test_a_reply_on_a_kept_connection_waits_for_no_acknowledgement(daemon: RunningDaemon) -> None:
    """Nagle's algorithm would hold back a reply's body until the client's delayed acknowledgement of its head."""
    seconds = []
    with daemon.client() as client:
        for _ in range(30):
            started = time.perf_counter()
            client.get("/v1/models").raise_for_status()
            seconds.append(time.perf_counter() - started)
    assert min(seconds[10:]) < DELAYED_ACKNOWLEDGEMENT_S / 2  # the first ones are acknowledged at once
