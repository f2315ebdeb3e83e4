"""Audits over real files: what is drawn, asked, counted, erased and revoked. The cloud here knows the truth and errs as
often as it is told to; tests/integration/test_audits.py asks a real one."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.audits import Audits, Held, Seen
from agent.confidence.certificate import Certificate, Certificates, Score, dump
from agent.confidence.live import Judge
from agent.config import Risk
from agent.errors import BudgetExhausted, CloudRefused, CloudUnavailable, NotFound, PrivacyFailed
from agent.escalation.outbox import Outbox
from agent.escalation.store import Store
from agent.messages import Answer, ChatMessage, CloudReply, CloudRequest, Evidence, Inquiry, Quote
from agent.telemetry.journal import Journal
from agent.telemetry.labels import Labels
from agent.telemetry.metrics import Metrics

LOADED = {"score": "a"}
CERTIFICATE = Certificate(
    route="quote", epsilon=0.05, delta=0.05, threshold=0.5, n=400, served=300, wrong=5, coverage=0.75, risk=0.0167,
    risk_upper=0.035, bound=0.9, tuned_on=400, groups=12, depends_on=LOADED, data={}, issued_at=1.0,
    score=Score(0.0, {"x": 1.0}, (), ((0.0, 0.0), (1.0, 1.0))), scores=tuple(place / 10 for place in range(11)),
)  # fmt: skip
RISK = Risk(audit_share=1.0, audits_per_day=1000, cloud_error=0.1, keep_examples=100)
DAY_S = 24 * 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cloud:
    """Says ``true``, or raises what it is given."""

    says: str = "true"
    raises: Exception | None = None
    barrier: str | None = None
    is_online: bool = True
    asked: list[Inquiry] = field(default_factory=list)

    def allowed(self) -> str | None:
        return self.barrier

    def online(self) -> bool:
        return self.is_online

    async def consult(self, inquiry: Inquiry) -> CloudReply:
        self.asked.append(inquiry)
        if self.raises is not None:
            raise self.raises
        return CloudReply(inquiry.event_id, self.says, "https", "cloud", "model")


@dataclass
class Device:
    audits: Audits
    labels: Labels
    certificates: Certificates
    journal: Journal
    metrics: Metrics
    cloud: Cloud
    clock: Clock

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def device(
    state: Path, risk: Risk = RISK, cloud: Cloud | None = None, later: Outbox | None = None
) -> AsyncIterator[Device]:
    """The parts over ``state``, with a certificate for quotes."""
    cloud, clock = cloud or Cloud(), Clock()
    certificates = Certificates(state / "certificates", state / "none", risk, lambda route: LOADED)
    certificates.refresh()
    if not (state / "certificates").exists():
        certificates.install(["quote"], [CERTIFICATE])
    metrics = Metrics()
    async with (
        Labels(state / "labels.db", keep=risk.keep_examples, clock=clock) as labels,
        Journal(state / "journal.db") as journal,
    ):
        audits = Audits(
            risk,
            labels=labels,
            certificates=certificates,
            cloud=cloud,
            agree=lambda device, said: device == said,
            judges={"cloud": Judge(risk.cloud_error), "visitor": Judge(risk.feedback_error)},
            journal=journal,
            metrics=metrics,
            busy=lambda: False,
            later=later,
            clock=clock,
        )
        await audits.open()
        yield Device(audits, labels, certificates, journal, metrics, cloud, clock)


def seen(
    id: str, text: str = "true", *, barrier: str | None = None, confidence: float = 0.9, **changes: object
) -> Seen:
    """A quote that was served under the certificate."""
    answer = Answer(
        id, text, "local", "confident", "quote", confidence, "quote", certificate=CERTIFICATE.id, retrieval="hybrid"
    )
    inquiry = Inquiry(
        id,
        f"what is {id}?",
        session="visitor-1",
        passages=(Quote("d", "T", "H", "A sentence.", 0.9, signals={"raw": 0.5}),),
        history=(ChatMessage("user", "before"),),
    )
    held = (Held(Evidence("quote", {"x": confidence}, confidence), text),)
    return Seen(replace(answer, **changes), inquiry, held, barrier)  # type: ignore[arg-type]


async def audited(device: Device, labels: int, wrong: float, seed: int = 1) -> int:
    """Serve and audit answers of which the share ``wrong`` is wrong, until one is enough to revoke; how many."""
    chance = random.Random(seed)
    for number in range(labels):
        await device.audits.saw(seen(f"e{seed}-{number}", "false" if chance.random() < wrong else "true"))
        if await device.audits.audit() is None:
            return number
    return labels


def _on_disk(state: Path, words: bytes) -> bool:
    return any(words in file.read_bytes() for file in state.glob("labels.db*"))


# ---------------------------------------------------------------- which are drawn


async def test_the_share_is_drawn_by_seed_and_event_alone(tmp_path: Path) -> None:
    risk = RISK.model_copy(update={"audit_share": 0.2})
    async with device(tmp_path, risk) as one:
        for number in range(200):
            await one.audits.saw(seen(f"e{number}"))
        drawn = await one.labels.waiting()
        assert 20 <= drawn <= 60
        for number in range(200):  # the same draw, whatever is said: nothing new
            await one.audits.saw(seen(f"e{number}", "another"))
        assert await one.labels.waiting() == drawn
        seed = one.labels.seed
    async with device(tmp_path, risk) as again:
        assert again.labels.seed == seed


async def test_what_may_not_leave_is_never_drawn(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        for barrier in ("local_only", "private", "escalation_disabled", "no_path"):
            await one.audits.saw(seen(f"e-{barrier}", barrier=barrier))
        await one.audits.saw(seen("handed", decision="handoff", route="none"))
        await one.audits.saw(seen("cloud", decision="escalated", answer_kind="cloud", route="none"))
        await one.audits.saw(seen("action", decision="action", route="intent"))
        assert await one.labels.waiting() == 0
        await one.audits.saw(seen("spent", barrier="budget_exhausted"))
        assert await one.labels.waiting() == 1


async def test_withdrawn_consent_erases_what_waits(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        await one.audits.saw(seen("e1"))
    async with device(tmp_path, cloud=Cloud(barrier="escalation_disabled")) as one:
        assert await one.labels.waiting() == 0
        assert await one.audits.audit() is None
        assert not one.cloud.asked


async def test_no_more_than_the_budget_is_asked_or_waits(tmp_path: Path) -> None:
    risk = RISK.model_copy(update={"audits_per_day": 5})
    async with device(tmp_path, risk) as one:
        for number in range(40):
            await one.audits.saw(seen(f"e{number}"))
        assert await one.labels.waiting() == 5
        kept = await one.labels.due()
        assert kept is not None
        assert kept.place < 0.2  # the lowest of forty draws
        for _ in range(5):
            assert await one.audits.audit() == "alike"
        await one.audits.saw(seen("later"))
        assert await one.audits.audit() is None
        assert len(one.cloud.asked) == 5
        assert (await one.audits.status()).today == 5
    async with device(tmp_path, risk) as one:  # a restart is no new day
        assert await one.audits.audit() is None
        one.clock.now += DAY_S - 60
        assert await one.audits.audit() == "alike"


# ---------------------------------------------------------------- asking


async def test_the_cloud_is_asked_the_same_and_the_question_is_erased(tmp_path: Path) -> None:
    async with device(tmp_path, RISK.model_copy(update={"keep_examples": 0})) as one:
        await one.audits.saw(seen("e1"))
        assert await one.audits.audit() == "alike"
        assert one.cloud.asked == [seen("e1").inquiry]
        assert await one.labels.waiting() == 0
        assert await one.audits.audit() is None
        assert one.count("outpost_live_risk_audits_total", route="quote", outcome="alike") == 1
        assert one.count("outpost_live_risk_labels", route="quote") == 1
    assert not _on_disk(tmp_path, b"what is e1")


@pytest.mark.parametrize("error", [CloudRefused("no"), PrivacyFailed("no")])
async def test_an_audit_that_cannot_be_is_dropped_without_a_label(tmp_path: Path, error: Exception) -> None:
    async with device(tmp_path, cloud=Cloud(raises=error)) as one:
        await one.audits.saw(seen("e1"))
        assert await one.audits.audit() == "refused"
        assert await one.labels.waiting() == 0
        assert one.count("outpost_live_risk_labels", route="quote") == 0


@pytest.mark.parametrize("error", [CloudUnavailable("no line", retry_after_s=60), BudgetExhausted("spent")])
async def test_an_audit_without_a_line_waits_and_ends_with_the_day(tmp_path: Path, error: Exception) -> None:
    async with device(tmp_path, cloud=Cloud(raises=error)) as one:
        await one.audits.saw(seen("e1"))
        assert await one.audits.audit() == "unavailable"
        assert await one.audits.audit() is None
        one.clock.now += 400
        one.cloud.raises = None
        one.cloud.is_online = False
        assert await one.audits.audit() is None
        one.cloud.is_online = True
        assert await one.audits.audit() == "alike"
        await one.audits.saw(seen("e2"))
        one.clock.now += DAY_S + 1
        assert await one.audits.audit() is None
        assert await one.labels.waiting() == 0


# ---------------------------------------------------------------- the promise


async def test_a_broken_promise_is_revoked_everywhere_and_for_good(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        count = await audited(one, 300, wrong=0.5)
        assert count < 100
        standing = one.certificates.current("quote")
        assert standing.reason == "certificate_revoked"
        assert "promises 5.0%" in standing.detail
        assert one.count("outpost_certificate_revoked_total", route="quote") == 1
        assert one.count("outpost_live_risk_lower", route="quote") >= 0.05
        assert await one.journal.decisions(0.0) == {("revoked", "live_risk"): 1}
        assert any("revoked" in note for note in one.audits.notes())
        (route,) = (await one.audits.status()).routes
        assert route.certificate == CERTIFICATE.id
        assert route.revoked
        assert route.risk.lower >= 0.05
    async with device(tmp_path) as one:
        assert one.certificates.current("quote").reason == "certificate_revoked"
        assert await one.journal.decisions(0.0) == {("revoked", "live_risk"): 1}
        assert (await one.audits.status()).routes[0].revoked


async def test_a_promise_that_is_kept_beside_a_cloud_that_errs_is_not(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        assert await audited(one, 80, wrong=0.1) == 80
        assert one.certificates.current("quote").certificate is not None
        (route,) = (await one.audits.status()).routes
        assert route.risk.labels == {"cloud": 80, "visitor": 0}
        assert route.risk.lower < 0.05


async def test_a_crash_before_the_revocation_is_made_good(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        await audited(one, 300, wrong=0.5)
    (tmp_path / "certificates" / "revoked.json").unlink()
    async with device(tmp_path) as one:
        await one.audits.enforce()
        assert one.certificates.current("quote").reason == "certificate_revoked"


async def test_an_operator_can_reinstate_it_and_the_counting_begins_anew(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        with pytest.raises(NotFound, match="not revoked"):
            await one.audits.reinstate(CERTIFICATE.id)
        await audited(one, 300, wrong=0.5)
        await one.audits.reinstate(CERTIFICATE.id)
        assert one.certificates.current("quote").certificate == CERTIFICATE
        assert (await one.audits.status()).routes[0].risk.labels["cloud"] == 0
        assert await audited(one, 300, wrong=0.5, seed=2) < 100
        assert one.certificates.current("quote").reason == "certificate_revoked"
    async with device(tmp_path) as one:
        await one.audits.reinstate(CERTIFICATE.id)
    async with device(tmp_path) as one:
        assert one.certificates.current("quote").certificate == CERTIFICATE


async def test_answers_of_a_certificate_that_was_replaced_are_not_asked(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        await one.audits.saw(seen("e1"))
        one.certificates.install(["quote"], [replace(CERTIFICATE, issued_at=2.0)])
        assert await one.audits.audit() is None
        assert await one.labels.waiting() == 0
        assert not one.cloud.asked


async def test_what_is_served_uncertified_is_watched_and_nothing_is_revoked(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        for number in range(30):
            await one.audits.saw(seen(f"e{number}", "false", certificate=None))
            assert await one.audits.audit() == "different"
        certified, uncertified = (await one.audits.status()).routes
        assert certified.certificate == CERTIFICATE.id
        assert certified.risk.labels["cloud"] == 0
        assert uncertified.certificate is None
        assert uncertified.risk.lower > 0.05
        assert one.certificates.current("quote").certificate is not None


# ---------------------------------------------------------------- visitors


async def test_visitors_are_heard_only_where_the_operator_allows_it(tmp_path: Path) -> None:
    async with device(tmp_path, RISK.model_copy(update={"audit_share": 0.0})) as one:
        await one.audits.saw(seen("e1"))
        assert not await one.audits.judged("e1", "wrong")
    risk = RISK.model_copy(update={"audit_share": 0.0, "feedback_labels": True})
    async with device(tmp_path, risk) as one:
        assert not await one.audits.judged("e1", "wrong")  # served before
        await one.audits.saw(seen("e2"))
        assert await one.audits.judged("e2", "wrong")
        assert not await one.audits.judged("e2", "wrong")
        (route,) = (await one.audits.status()).routes
        assert route.risk.wrong == {"cloud": 0, "visitor": 1}


async def test_an_answer_counts_once(tmp_path: Path) -> None:
    """What is audited is not judged by its visitor as well: two labels of one answer depend on each other."""
    async with device(tmp_path, RISK.model_copy(update={"feedback_labels": True})) as one:
        await one.audits.saw(seen("e1"))
        assert not await one.audits.judged("e1", "wrong")
        assert await one.audits.audit() == "alike"
        assert not await one.audits.judged("e1", "wrong")
        (route,) = (await one.audits.status()).routes
        assert route.risk.labels == {"cloud": 1, "visitor": 0}


# ---------------------------------------------------------------- examples and drift


async def test_audits_and_escalations_leave_examples_where_they_are_allowed(tmp_path: Path) -> None:
    async with device(tmp_path) as one:
        await one.audits.saw(seen("good"))
        await one.audits.audit()
        await one.audits.saw(seen("bad", "false"))
        await one.audits.audit()
        await one.audits.saw(seen("asked", decision="escalated", answer_kind="cloud", route="none", confidence=0.2))
        cut = seen("cut", decision="escalated", reason="cloud_cut", answer_kind="cloud", route="none")
        await one.audits.saw(cut)
        one.cloud.says = "I don't know."
        await one.audits.saw(seen("unknown"))
        await one.audits.audit()
        rows = [json.loads(line) for _, line in await one.labels.examples()]
        told = [(row["question"], row["answers"], row["right"], row["source"], row["route"]) for row in rows]
        assert told == [
            ("what is good?", ["true"], True, "audit", "quote"),
            ("what is bad?", ["true"], False, "audit", "quote"),
            ("what is asked?", ["true"], True, "escalation", "quote"),
            ("what is unknown?", [], False, "audit", "quote"),
        ]
        assert rows[0]["features"] == {"x": 0.9}
        assert (await one.audits.status()).examples == 4
        await one.audits.saw(seen("waits"))
        assert await one.audits.forget("visitor-1") == 5
        assert await one.labels.examples() == []
    async with device(tmp_path, RISK.model_copy(update={"keep_examples": 0})) as one:
        await one.audits.saw(seen("e2"))
        await one.audits.audit()
        assert await one.labels.examples() == []


async def test_answers_that_come_later_leave_examples_as_those_that_came_at_once(tmp_path: Path) -> None:
    async with Store(tmp_path / "outbox.db") as store:
        outbox = Outbox(store, limit_bytes=1 << 20, person_s=60.0)
        names = ("good", "bad", "cut", "refused", "person", "gone", "forgotten", "waits")
        async with device(tmp_path, later=outbox) as one:
            for name in names:
                told = seen(name, decision="deferred", reason="offline", route="none", confidence=0.2)
                if name == "forgotten":
                    told = replace(told, inquiry=replace(told.inquiry, session="visitor-2"))
                request = CloudRequest(name, name, (), 10, expires_at=4e9)
                if name != "gone":
                    await outbox.put(told.inquiry, request, b"", personal=False)
                await one.audits.saw(told)
            await one.audits.learn_late()
            assert await one.labels.examples() == [], "nothing is answered yet"
            await outbox.settle("good", "true", "cloud", "near")
            await outbox.settle("bad", "false", "cloud", "near")
            await outbox.settle("cut", "tr", "cloud", "near", cut=True)
            await outbox.refuse("refused", "cloud_refused")
            await outbox.settle("person", "true", "person", "desk")
            await outbox.settle("forgotten", "true", "cloud", "near")
            assert await one.audits.forget("visitor-2") == 1
        async with device(tmp_path, later=outbox) as one:  # whatever ended in between
            await one.audits.learn_late()
            rows = [json.loads(line) for _, line in await one.labels.examples()]
            told_of = [(row["question"], row["answers"], row["right"], row["source"], row["share"]) for row in rows]
            assert told_of == [
                ("what is good?", ["true"], True, "escalation", 1.0),
                ("what is bad?", ["false"], False, "escalation", 1.0),
            ]
            assert rows[0]["features"] == {"x": 0.2}
            assert list(await one.labels.expected()) == ["waits"]


async def test_examples_are_bounded_and_end_with_the_permission(tmp_path: Path) -> None:
    risk = RISK.model_copy(update={"keep_examples": 3})
    async with device(tmp_path, risk) as one:
        for number in range(7):
            await one.audits.saw(seen(f"e{number}"))
            await one.audits.audit()
        kept = await one.labels.examples()
        assert [json.loads(line)["question"] for _, line in kept] == ["what is e4?", "what is e5?", "what is e6?"]
        assert await one.labels.examples(after=kept[1][0]) == kept[2:]
    async with device(tmp_path, RISK.model_copy(update={"keep_examples": 0})) as one:
        assert await one.labels.examples() == []


async def test_drifted_confidences_are_a_warning(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with device(tmp_path, RISK.model_copy(update={"audit_share": 0.0})) as one:
        for number in range(300):
            await one.audits.saw(seen(f"e{number}", confidence=chance.random()))
        assert one.audits.notes() == []
        for number in range(300):
            await one.audits.saw(seen(f"f{number}", confidence=0.1 * chance.random()))
        (route,) = (await one.audits.status()).routes
        assert route.drift is not None
        assert route.drift.warning
        assert any("drifted" in note for note in one.audits.notes())
        assert one.certificates.current("quote").certificate is not None
        running = asyncio.create_task(one.audits.run(), name="audits")
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        assert one.count("outpost_score_drift_psi", route="quote") == route.drift.psi
        assert one.count("outpost_score_drift_kl_nats", route="quote") == route.drift.kl
    async with device(tmp_path, RISK.model_copy(update={"audit_share": 0.0})) as one:
        (again,) = (await one.audits.status()).routes
        assert again.drift == route.drift, "what was seen is kept through a restart"


def test_the_certificate_of_these_tests_is_one() -> None:
    from agent.confidence.certificate import parse

    assert parse(dump(CERTIFICATE)) == CERTIFICATE
