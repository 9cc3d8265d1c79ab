# SPDX-License-Identifier: GPL-2.0
"""What came out: medians, spreads and verdicts, as a table, as JSON and as a plot."""

import html
import math
import statistics
from dataclasses import dataclass, field

from rows import Row

DRIVERS = ("ours", "c")


@dataclass
class Measured:
    """All runs of one row; runs of the same number are a pair."""

    row: Row
    values: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "c": []})
    bare: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / c for ours, c in zip(self.values["ours"], self.values["c"]) if c]

    @property
    def verdict(self) -> str:
        ratios = self.ratios
        if not ratios:
            return "not measured"
        middle = statistics.median(ratios)
        less = self.row.less_is_better
        reached = middle <= self.row.target if less else middle >= self.row.target
        # One run says nothing about its spread.
        if len(ratios) < 2 or min(ratios) <= 1.0 <= max(ratios):
            return "undecided"
        if reached:
            return "reached"
        ahead = middle < 1.0 if less else middle > 1.0
        return "ahead" if ahead else "behind"

    def as_json(self) -> dict:
        return {"row": self.row.name, "title": self.row.title, "unit": self.row.unit,
                "target": self.row.target, "less_is_better": self.row.less_is_better,
                "ours": self.values["ours"], "c": self.values["c"], "bare": self.bare,
                "bare_is": self.row.bare_title, "ratios": self.ratios,
                "median_ratio": statistics.median(self.ratios) if self.ratios else None,
                "verdict": self.verdict, "failures": self.failures}


def number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def middle(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def table(results: list[Measured], facts: dict) -> str:
    """A table in Markdown, below a line that says what it is of."""
    lines = [f"Lane {facts['lane']}, wire of {facts['wire']}, kernel {facts['kernel']}, "
             f"{facts['date']}; host: {facts['processors']} × {facts['processor']}, "
             f"load {facts['load']:.1f}", "",
             "| row | unit | ours | C | ours / C | target | verdict | bare |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for result in results:
        row = result.row
        sign = "≤" if row.less_is_better else "≥"
        bare = f"{row.bare_title} {middle(result.bare)}" if result.bare else "-"
        lines.append(f"| {row.title} | {row.unit} | {middle(result.values['ours'])} | "
                     f"{middle(result.values['c'])} | {middle(result.ratios)} | "
                     f"{sign} {row.target} | {result.verdict} | {bare} |")
        lines += [f"| {row.name} failed: {text} | | | | | | | |" for text in result.failures]
    return "\n".join(lines) + "\n"


_WIDTH, _LEFT, _STEP, _TOP = 900, 420, 26, 40
_COLOURS = {"reached": "#2a7", "ahead": "#69c", "undecided": "#999", "behind": "#c44"}


def _x(ratio: float) -> float:
    """Ratios from 1/8 to 8 on a logarithmic scale."""
    return _LEFT + (math.log2(min(max(ratio, 1 / 8), 8)) + 3) / 6 * (_WIDTH - _LEFT - 20)


def plot(results: list[Measured], facts: dict) -> str:
    """The gain of each row (so that right is better for all of them), with its spread, as SVG."""
    height = _TOP + _STEP * (len(results) + 1)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
           'font-family="sans-serif" font-size="12">',
           f'<text x="6" y="16">lane {facts["lane"]}, {facts["wire"]}, '
           f'{html.escape(facts["kernel"].split()[0])}, {facts["date"]}</text>',
           f'<text x="{_LEFT}" y="16">times as good as the C driver: median, min–max; '
           'a bar marks the target</text>']
    for ratio in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8):
        out.append(f'<line x1="{_x(ratio):.0f}" x2="{_x(ratio):.0f}" y1="{_TOP - 12}" '
                   f'y2="{height - 10}" stroke="{"#000" if ratio == 1 else "#ddd"}"/>'
                   f'<text x="{_x(ratio):.0f}" y="{_TOP - 14}" text-anchor="middle">'
                   f'{ratio:g}</text>')
    for place, result in enumerate(results):
        y = _TOP + _STEP * place + 8
        out.append(f'<text x="6" y="{y + 4}">{html.escape(result.row.title)}</text>')
        gains = sorted(1 / ratio if result.row.less_is_better else ratio
                       for ratio in result.ratios if ratio > 0)
        if not gains:
            continue
        target = 1 / result.row.target if result.row.less_is_better else result.row.target
        colour = _COLOURS.get(result.verdict, "#999")
        out.append(
            f'<line x1="{_x(target):.0f}" x2="{_x(target):.0f}" y1="{y - 8}" y2="{y + 8}" '
            f'stroke="#000" stroke-width="2"/><line x1="{_x(gains[0]):.0f}" '
            f'x2="{_x(gains[-1]):.0f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{_x(statistics.median(gains)):.0f}" cy="{y}" r="5" fill="{colour}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"
