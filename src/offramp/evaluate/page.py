"""The report as one HTML page: no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from offramp.evaluate.bootstrap import Interval
from offramp.evaluate.charts import Point, bars, colour, scatter
from offramp.evaluate.results import EvalReport, Sample, SettingReport
from offramp.exits.calibration import DISAGREEMENT, read_risk

QUALITY = {"differ": "differ", "rouge_l": "ROUGE-L", "chrf": "chrF"}
WORK = {
    "exit_layer": "exit at",
    "run": "run",
    "filled": "filled",
    "skipped": "skipped",
    "tokens_per_second": "tokens/s",
}
"""Measures in the order of the tables, and what their heads say."""

LOSSES = {DISAGREEMENT: ("differ", "share that differs"), "task": ("task", "share of answers that is lost")}
"""The measure of each loss that a risk can promise, and how a chart says it."""

Rows = list[tuple[str, list[tuple[str, str]]]]
"""The name of a setting, and a value with its interval for each column."""

STYLE = """body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px;margin-bottom:1em}
th,td{padding:4px 9px;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}small{color:#777;display:block}
.sample{white-space:pre-wrap;background:#fafafa;border:1px solid #ddd;padding:8px;margin:4px 0 14px;font-size:13px}
.charts{display:flex;flex-wrap:wrap;gap:12px}"""

SHALLOW, DEEP = (120, 225, 150), (250, 225, 160)
"""Behind tokens that left lowest and just below the top; those of the top have white."""

CAPTIONS = """<p>Every setting generated for the same prompts, in turns. <b>differ</b>: share of generated tokens that
differ from one full-depth pass over the same tokens, as calibration counts them. <b>ROUGE-L</b>, <b>chrF</b>: likeness
of outputs to those of full depth. Sets with answers: the share that is right, and the points <b>lost</b> against full
depth on the same prompts. <b>perplexity</b>: of outputs, under full depth. <b>run</b>, <b>filled</b>,
<b>skipped</b>: layers for a token. Small figures: 95% bootstrap intervals over prompts.</p>"""


def page(report: EvalReport) -> str:
    """The whole page."""
    sets = ", ".join(f"{count} of {name}" for name, count in report.prompts.items())
    about = "; ".join(f"{name} {value}" for name, value in report.about.items())
    charts = "\n".join([*_frontiers(report), _depths(report), *_calibration(report)])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>offramp eval</title><style>{STYLE}</style></head><body>
<h1>What early exits cost and save</h1>
<p>Prompts: {escape(sets)}. {escape(about)}.</p>
{"".join(_table(*table) for table in tables(report))}
{CAPTIONS}
<div class="charts">{charts}</div>
<h2>Samples</h2>
<p>The greener a token, the earlier it left; white ones ran all {report.depth} layers.</p>
{_samples(report)}
</body></html>
"""


def tables(report: EvalReport) -> list[tuple[str, list[str], Rows]]:
    """The title, the heads and the rows of a table of quality and of one of work."""
    shares = dict(QUALITY)
    for task in _answered(report):
        shares |= {f"accuracy/{task}": task, f"points_lost/{task}": "lost"}
    quality, work = [], []
    for setting in report.settings:
        told = setting.measures
        quality.append((setting.name, [*(_shown(told[n], 100) for n in shares), _shown(told["perplexity"])]))
        work.append((setting.name, [*(_shown(told[n]) for n in WORK), _shown(setting.speedup)]))
    return [
        ("quality, %", [*shares.values(), "perplexity"], quality),
        ("work", [*WORK.values(), "speed-up"], work),
    ]


def _shown(interval: Interval, scale: int = 1) -> tuple[str, str]:
    """Three digits or so."""
    digits = 2 if abs(interval.value) * scale < 10 else 1 if abs(interval.value) * scale < 100 else 0
    value, low, high = (f"{number * scale:.{digits}f}" for number in interval)
    return value, f"{low} to {high}" if interval.low < 0 else f"{low}-{high}"


def _table(title: str, heads: Sequence[str], rows: Rows) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (title, *heads))
    body = []
    for name, cells in rows:
        told = "".join(f"<td>{value}<small>{interval}</small></td>" for value, interval in cells)
        body.append(f"<tr><td>{escape(name)}</td>{told}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _answered(report: EvalReport) -> list[str]:
    """The sets that have answers."""
    return [name.partition("/")[2] for name in report.settings[0].measures if name.startswith("accuracy/")]


def _frontiers(report: EvalReport) -> Iterable[str]:
    """Likeness to full depth against speed, and, of sets that have answers, accuracy."""
    shown = {"rouge_l": "ROUGE-L against full depth"}
    shown |= {f"accuracy/{task}": f"share right of {task}" for task in _answered(report)}
    for name, up in shown.items():
        points = [Point(s.name, i, s.speedup, s.measures[name]) for i, s in enumerate(report.settings)]
        yield scatter("Quality against speed", "speed-up over full depth", up, points)


def _depths(report: EvalReport) -> str:
    shares = {setting.name: setting.exit_shares for setting in report.settings}
    return bars("Where tokens leave", "layer", "share of tokens", shares)


def _calibration(report: EvalReport) -> Iterable[str]:
    """What was promised against what is lost here, for settings that are risks: a chart for each loss."""
    for loss, (measure, up) in LOSSES.items():
        points = []
        for number, setting in enumerate(report.settings):
            asked = as_risk(setting.name)
            if asked is not None and asked[0] == loss and measure in setting.measures:
                risk = Interval(asked[1], asked[1], asked[1])
                points.append(Point(setting.name, number, risk, setting.measures[measure]))
        if points:
            yield scatter("Calibration", "risk that was asked for", up, points, diagonal=True)


def as_risk(setting: str) -> tuple[str, float] | None:
    """The loss and the risk that a setting of the dial is, if it is a risk."""
    try:
        return read_risk(setting)
    except ValueError:
        return None


def _samples(report: EvalReport) -> str:
    parts = []
    for number, first in enumerate(report.settings[0].samples):
        parts.append(f"<h3>{number + 1}</h3><div class=sample>{escape(first.prompt)}</div>")
        for place, setting in enumerate(report.settings):
            parts.append(_sample(setting, setting.samples[number], colour(place), report.depth))
    return "\n".join(parts)


def _sample(setting: SettingReport, sample: Sample, ink: str, depth: int) -> str:
    mean = sum(layer for _, layer in sample.pieces[:-1]) / max(len(sample.pieces) - 1, 1)
    title = f'<b style="color:{ink}">{escape(setting.name)}</b>, mean exit layer {mean:.1f}'
    return f"{title}<div class=sample>{_tinted(sample.pieces, depth)}</div>"


def _tinted(pieces: Sequence[tuple[str, int]], depth: int) -> str:
    parts = []
    for text, layer in pieces:
        if layer >= depth or not text:
            parts.append(escape(text))
            continue
        share = layer / depth
        tint = ",".join(str(round(a + share * (b - a))) for a, b in zip(SHALLOW, DEEP, strict=True))
        parts.append(f'<span style="background:rgb({tint})" title="layer {layer}">{escape(text)}</span>')
    return "".join(parts)
