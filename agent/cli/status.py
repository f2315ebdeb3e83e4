"""`outpost status`: how the daemon is."""

from __future__ import annotations

from typing import Any

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table, size

_NOT_ASKED = {
    "escalation_disabled": "never asked (escalation_disabled: no escalation.enabled, or the policy local-only)",
    "no_path": "cannot be asked (no_path: neither an endpoint nor OPENAI_BASE_URL nor a broker is configured)",
    "budget_exhausted": "not asked until tomorrow (budget_exhausted)",
}
"""Why no question goes to the cloud, in words."""


def status(url: Url = DEFAULT_URL, state: State = None, json: Json = False) -> None:
    """Show models, memory, queue, the promise, the cloud, knowledge and decisions."""
    found = Daemon(url, state, operator=True).get("/admin/status")
    if json:
        print_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    memory, queue, latency = found["memory"], found["queue"], found["latency_ms"]
    console().print(
        f"Outpost {found['version']} on {found['device']['name']}: {'ready' if found['ready'] else 'not ready'},"
        f" up {found['uptime_s']:.0f} s, policy {found['policy']}, {found['retrieval']} retrieval",
        markup=False,
    )
    console().print(
        f"memory {size(memory['used_bytes'])} of {size(memory['budget_bytes'])} by models,"
        f" {size(memory['control_bytes'])} by the daemon; queue {queue['active']} of {queue['limit']}",
        markup=False,
    )
    if latency["count"]:
        console().print(f"answers: median {latency['p50']} ms, 95 % below {latency['p95']} ms ({latency['count']})")
    _print_promise(found)
    console().print()
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
        console().print()
        columns = ("collection", "documents", "chunks", "embedded")
        print_table(columns, ([row[column] for column in columns] for row in found["knowledge"]))
    if found["decisions"]:
        console().print()
        decided = ("decision", "reason", "count")
        print_table(decided, ([row[column] for column in decided] for row in found["decisions"]), title="last hour")
    for note in found["notes"]:
        console().print(f"note: {note}", style="yellow", markup=False)


def _print_promise(found: dict[str, Any]) -> None:
    """What is promised, whether it is kept, who answers, and what the cloud may still cost today."""
    promise, serving, budget, way = found["promise"], found["serving"], found["budget"], found["escalation"]
    console().print(
        f"promise: at most {promise['epsilon']:.1%} of the answers that a certificate covers are wrong, with"
        f" {1 - promise['delta']:.0%} certainty"
    )
    for name, policy in promise["overrides"].items():
        console().print(f"  {name}: policy {policy}", markup=False)
    print_table(
        ("route", "promise", "certificate", "coverage", "risk at most", "examples"),
        (
            (
                route["route"],
                f"{route['epsilon']:.1%}",
                route["certificate"] or f"none: {route['reason']}",
                _share(route["coverage"]),
                _share(route["risk_upper"]),
                route["n"],
            )
            for route in promise["routes"]
        ),
    )
    _print_live(found["live_risk"])
    if serving["questions"]:
        console().print(
            f"last day: {serving['questions']} questions, {_share(serving['local_coverage'])} answered locally,"
            f" {_share(serving['escalation_rate'])} escalated, {serving['handoff']} handed over"
        )
    waiting = way["outbox"]["waiting"]
    line = _NOT_ASKED.get(way["reason"], way["reason"]) or ("online" if way["online"] else "offline")
    full = _share(way["outbox"]["bytes"] / way["outbox"]["limit_bytes"])
    with_people = way["outbox"]["handed_off"]
    console().print(f"cloud: {line}; {waiting} waiting, {with_people} with a person, outbox {full} full", markup=False)
    if way["trouble"]:
        console().print(f"  the last try failed: {way['trouble']}", style="yellow", markup=False)
    if way["reason"] != "escalation_disabled":
        spent = ", ".join(
            f"{budget[name]['spent']:g} of {budget[name]['limit']:g} {name}" for name in ("requests", "tokens", "money")
        )
        console().print(f"today's budget: {spent}")
    console().print(f"audit log: {found['audit']['entries']} entries, head {found['audit']['head']}", markup=False)


def _print_live(live: dict[str, Any]) -> None:
    """Whether the promise is kept while the device runs."""
    audits = live["audits"]
    if live["routes"]:
        print_table(
            ("route", "live risk", "at least", "at most", "judged", "drift"),
            (
                (
                    route["route"] if route["certificate"] else f"{route['route']} (uncertified)",
                    f"revoked: {route['certificate']}" if route["revoked"] else _share(route["estimate"]),
                    _share(route["lower"]),
                    _share(route["upper"]),
                    _judged(route),
                    _drift(route["drift"]),
                )
                for route in live["routes"]
            ),
        )
    made = f"none are made ({audits['barrier']})" if audits["barrier"] else f"{audits['waiting']} waiting"
    console().print(
        f"audits: {audits['today']} of {audits['per_day']} today, {made}; {live['examples']} examples kept",
        markup=False,
    )


def _judged(route: dict[str, Any]) -> str:
    wrong = route["wrong"]
    return ", ".join(f"{count} by {who}, {wrong[who]} wrong" for who, count in route["labels"].items() if count) or "-"


def _drift(drift: dict[str, Any] | None) -> str:
    if drift is None or drift["psi"] is None:
        return "-"
    return f"PSI {drift['psi']:.2f}" + (" (large)" if drift["warning"] else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
