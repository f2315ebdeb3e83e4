"""The report of a calibration: one HTML page with its charts as inline SVG, and the charts as PNG files.

The page needs nothing but this module, so a device can make it. PNGs are for papers and wikis: they are drawn by
matplotlib (the extra ``report``) where `outpost calibrate --png` asks for them, from the same `Chart`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from agent.confidence.outcome import Outcome, Point
from agent.errors import StorageFailed, Unavailable

_WIDTH: Final = 420
_HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44
_TICKS: Final = 5
_WORDS = {
    "no_prospect": "the tuning half shows no threshold that could keep this promise",
    "not_certified": "the first test failed: even the surest of the held answers are too few, or wrong too often",
    "too_few_labels": "too few right or too few wrong answers among the labelled ones",
    "coverage_below_floor": "the share it would serve is under the coverage floor",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
  background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td + td, th + th { text-align: right } figure { display: inline-block; margin: 0 1rem 1rem 0 }
figcaption { font-weight: 600 } svg text { font: 12px system-ui, sans-serif; fill: #444 }
code { font-size: .85em; overflow-wrap: anywhere } h2 { margin-top: 2.5rem }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line; ``dots`` draws them as dots instead, their areas by ``sizes`` (0..1)."""

    label: str
    points: tuple[Point, ...]
    colour: str
    dashed: bool = False
    dots: bool = False
    sizes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Axes from 0 to 1 across and from 0 to ``top`` up."""

    name: str
    title: str
    across: str
    up: str
    top: float
    lines: tuple[Line, ...]


def charts(outcome: Outcome) -> tuple[Chart, ...]:
    """Reliability diagram and risk-coverage curve; none where nothing could be fitted."""
    curves = outcome.curves
    if curves is None:
        return ()
    bins = tuple((mean, share) for mean, share, _ in curves.reliability)
    sizes = tuple(size for _, _, size in curves.reliability)
    top = max([outcome.epsilon * 2, *(risk for _, risk in curves.risk_coverage)]) * 1.05
    risk = [
        Line("this score", curves.risk_coverage, "#0b57d0"),
        Line("best possible order", curves.ideal, "#777"),
        Line(f"epsilon {outcome.epsilon:g}", ((0.0, outcome.epsilon), (1.0, outcome.epsilon)), "#b3261e", dashed=True),
    ]
    if curves.certified is not None:
        risk.append(Line("certified", (curves.certified,), "#146c2e", dots=True, sizes=(0.15,)))
    return (
        Chart(
            f"{outcome.route}-reliability",
            "Reliability",
            "confidence",
            "share right",
            1.0,
            (
                Line("perfect", ((0.0, 0.0), (1.0, 1.0)), "#777", dashed=True),
                Line("held answers, area by number", bins, "#0b57d0", dots=True, sizes=sizes),
            ),
        ),
        Chart(f"{outcome.route}-risk-coverage", "Risk by coverage", "share served", "share wrong", top, tuple(risk)),
    )


# ---------------------------------------------------------------- the page


def page(outcomes: Sequence[Outcome], when: str) -> str:
    """A whole HTML document; ``when`` is the date as people write it."""
    sections = "\n".join(_section(outcome) for outcome in outcomes)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Calibration, {escape(when)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Calibration, {escape(when)}</h1>\n"
        "<p>All figures are of the half of the labelled data that neither score nor thresholds have seen. "
        "docs/confidence.md says what a certificate promises, and what not.</p>\n"
        f"{sections}\n</body></html>\n"
    )


def _section(outcome: Outcome) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(chart.title)}</figcaption>{svg(chart)}</figure>" for chart in charts(outcome)
    )
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts(outcome))
    certificate = outcome.certificate
    bound_to = ""
    if certificate is not None:
        hashes = "".join(f"<tr><td>{escape(k)}</td><td><code>{v}</code></td></tr>" for k, v in _hashes(outcome))
        bound_to = f"<details><summary>Bound to</summary><table>{hashes}</table></details>"
    said = "certified" if certificate is not None else f"no certificate: {why(outcome)}"
    heading = f"<h2>Route {escape(outcome.route)}: {escape(said)}</h2>"
    return f"<section>{heading}\n<table>{rows}</table>\n{figures}\n{bound_to}</section>"


def why(outcome: Outcome) -> str:
    """Why there is no certificate, in words."""
    return _WORDS.get(outcome.reason, outcome.reason)


def facts(outcome: Outcome) -> list[tuple[str, str]]:
    """What a person wants to read of an outcome, in order."""
    found = [("promise", f"at most {outcome.epsilon:.1%} wrong, with {1 - outcome.delta:.0%} certainty")]
    certificate, curves = outcome.certificate, outcome.curves
    if certificate is not None:
        found += [
            ("certificate", certificate.id),
            ("threshold of the confidence", f"{certificate.threshold:.4f}"),
            ("served", f"{certificate.served} of {certificate.n} ({certificate.coverage:.1%})"),
            ("wrong among the served", f"{certificate.wrong} ({certificate.risk:.1%})"),
            ("upper bound of that risk", f"{certificate.risk_upper:.1%}"),
        ]
        if certificate.gate is not None:
            found.append(("holds for questions left by", certificate.gate.route))
    if curves is not None and outcome.walk is not None:
        found += [
            ("held samples", str(outcome.walk.n)),
            ("wrong if all were served (mu)", f"{curves.measures['error']:.1%}"),
            ("largest possible share served, (1 - mu) / (1 - epsilon)", f"{curves.bound:.1%}"),
            ("AUROC of right against wrong", f"{curves.measures['auroc']:.3f}"),
            ("AURC", f"{curves.measures['aurc']:.4f}"),
            ("E-AURC", f"{curves.measures['e_aurc']:.4f}"),
            ("expected calibration error", f"{curves.measures['ece']:.4f}"),
        ]
        if "design_effect" in curves.measures:
            found.append(("design effect of the groups", f"{curves.measures['design_effect']:.2f}"))
    return found


def _hashes(outcome: Outcome) -> list[tuple[str, str]]:
    assert outcome.certificate is not None
    depends = [(name, escape(value)) for name, value in sorted(outcome.certificate.depends_on.items())]
    return [*depends, *((f"data {name}", escape(value)) for name, value in sorted(outcome.certificate.data.items()))]


def svg(chart: Chart) -> str:
    """A chart as an SVG element."""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}" xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        x, y = _place(chart, (share, share * chart.top))
        low, left = _place(chart, (0, 0))[1], _place(chart, (0, 0))[0]
        parts.append(f'<line x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share * chart.top:.2f}</text>')
        parts.append(f'<text x="{x}" y="{low + 16}" text-anchor="middle">{share:.1f}</text>')
    parts += [_drawn(chart, line) for line in chart.lines]
    for number, line in enumerate(chart.lines):
        y = _TOP + 12 + 15 * number
        parts.append(f'<rect x="{_LEFT + 8}" y="{y - 8}" width="10" height="10" fill="{line.colour}"/>')
        parts.append(f'<text x="{_LEFT + 23}" y="{y + 1}">{escape(line.label)}</text>')
    middle = _HEIGHT / 2
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(chart.across)}</text>')
    parts.append(
        f'<text transform="rotate(-90 12 {middle})" x="12" y="{middle}" text-anchor="middle">{escape(chart.up)}</text>'
    )
    return "".join([*parts, "</svg>"])


def _drawn(chart: Chart, line: Line) -> str:
    places = [_place(chart, point) for point in line.points]
    if line.dots:
        sizes = line.sizes or (0.1,) * len(places)
        return "".join(
            f'<circle cx="{x}" cy="{y}" r="{3 + 14 * size**0.5:.1f}" fill="{line.colour}" fill-opacity=".7"/>'
            for (x, y), size in zip(places, sizes, strict=True)
        )
    path = " ".join(f"{x},{y}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dashes}/>'


def _place(chart: Chart, point: Point) -> Point:
    across, up = point
    x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
    y = _HEIGHT - _BOTTOM - min(1.0, up / chart.top) * (_HEIGHT - _TOP - _BOTTOM)
    return round(x, 1), round(y, 1)


# ---------------------------------------------------------------- PNG


def write_png(chart: Chart, folder: Path) -> Path:
    """Draw a chart into ``folder``; the file. Raises Unavailable without matplotlib, StorageFailed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unavailable(
            "PNG charts need matplotlib, which is not installed",
            remedy="pip install 'outpost-agent[report]', or use the HTML report.",
        ) from error
    figure = Figure(figsize=(5.6, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot(title=chart.title, xlabel=chart.across, ylabel=chart.up)
    axes.set(xlim=(0, 1), ylim=(0, chart.top))
    axes.grid(color="#e3e3e3")
    for line in chart.lines:
        xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
        if line.dots:
            areas = [20 + 400 * size for size in line.sizes] or 40
            axes.scatter(xs, ys, areas, color=line.colour, alpha=0.7, label=line.label, zorder=3)
        else:
            axes.plot(xs, ys, color=line.colour, linestyle="--" if line.dashed else "-", label=line.label)
    axes.legend(loc="upper left", fontsize="small")
    path = folder / f"{chart.name}.png"
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}", remedy="Check the folder.") from error
    return path
