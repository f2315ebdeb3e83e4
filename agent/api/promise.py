"""What the status pages say of the promise: the routes' certificates, how much the device answers by itself, and what
of the day's budget is spent (L3)."""

from __future__ import annotations

import time

from agent.api.calibration import standing
from agent.api.services import Services
from agent.api.wire import JsonObject
from agent.confidence.certificate import ROUTES

_DAY_S = 24 * 3600


def promise(daemon: Services) -> JsonObject:
    """The operator's promise, and of every route the certificate that keeps it or the reason why there is none."""
    risk = daemon.config.risk
    return {
        "policy": daemon.config.assistant.policy,
        "epsilon": risk.epsilon,
        "delta": risk.delta,
        "overrides": {
            f"{kind}.{name}": override.policy
            for kind, table in (
                ("intents", daemon.config.overrides.intents),
                ("collections", daemon.config.overrides.collections),
            )
            for name, override in table.items()
        },
        "routes": [standing(route, daemon) for route in ROUTES],
    }


async def serving(daemon: Services) -> JsonObject:
    """Who answered during the last day. ``local_coverage``: share of the questions that the device answered by itself;
    ``escalation_rate``: share that went to a cloud, at once or later. None without questions."""
    counts: dict[str, int] = {}
    for (decision, _), count in (await daemon.journal.decisions(time.time() - _DAY_S)).items():
        counts[decision] = counts.get(decision, 0) + count
    counts.pop("revoked", None)  # of a certificate, not of a question
    total = sum(counts.values())
    local = counts.get("local", 0) + counts.get("action", 0)
    escalated = counts.get("escalated", 0) + counts.get("deferred", 0)
    return {
        "window_s": _DAY_S,
        "questions": total,
        "local": local,
        "escalated": counts.get("escalated", 0),
        "deferred": counts.get("deferred", 0),
        "handoff": counts.get("handoff", 0),
        "local_coverage": round(local / total, 4) if total else None,
        "escalation_rate": round(escalated / total, 4) if total else None,
    }


def budget(daemon: Services) -> JsonObject:
    """The day's budget for the cloud. ``exhausted`` names the limit that leaves no room for one more request."""
    kept = daemon.reach.budget
    spent, limits = kept.spent(), kept.limits
    return {
        "day": spent.day,
        "requests": {"spent": spent.requests, "limit": limits.daily_requests},
        "tokens": {"spent": spent.tokens, "limit": limits.daily_tokens},
        "money": {"spent": round(spent.money, 6), "limit": limits.daily_money},
        "exhausted": kept.exhausted(),
    }
