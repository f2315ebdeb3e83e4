"""`outpost status`: how the daemon is."""

from __future__ import annotations

from typing import Any

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table, size


def status(url: Url = DEFAULT_URL, state: State = None, json: Json = False) -> None:
    """Show models, memory, queue, knowledge and decisions."""
    found = Daemon(url, state, operator=True).get("/admin/status")
    if json:
        print_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    memory, queue, latency = found["memory"], found["queue"], found["latency_ms"]
    console.print(
        f"Outpost {found['version']} on {found['device']['name']}: {'ready' if found['ready'] else 'not ready'},"
        f" up {found['uptime_s']:.0f} s, policy {found['policy']}, {found['retrieval']} retrieval",
        markup=False,
    )
    console.print(
        f"memory {size(memory['used_bytes'])} of {size(memory['budget_bytes'])} by models,"
        f" {size(memory['control_bytes'])} by the daemon; queue {queue['active']} of {queue['limit']}",
        markup=False,
    )
    if latency["count"]:
        console.print(f"answers: median {latency['p50']} ms, 95 % below {latency['p95']} ms ({latency['count']})")
    console.print()
    print_table(
        ("model", "kind", "state", "memory", "loads", "crashes", "notes"),
        (
            (
                m["name"] + (" (reference)" if m["reference"] else ""),
                m["kind"],
                m["state"],
                size(m["pss_bytes"]),
                m["loads"],
                m["crashes"],
                "; ".join([*m["notes"], *([m["last_error"]] if m["last_error"] else [])]),
            )
            for m in found["models"]
        ),
    )
    if found["knowledge"]:
        console.print()
        columns = ("collection", "documents", "chunks", "embedded")
        print_table(columns, ([row[column] for column in columns] for row in found["knowledge"]))
    if found["decisions"]:
        console.print()
        decided = ("decision", "reason", "count")
        print_table(decided, ([row[column] for column in decided] for row in found["decisions"]), title="last hour")
    for note in found["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False)
