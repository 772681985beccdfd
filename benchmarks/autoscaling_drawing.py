"""The time line of a load step as an SVG: load, replicas and acts above, the 95th percentile below."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaling_runs import Point

WIDE, HIGH, LEFT = 800.0, 160.0, 50.0
ABOVE, BELOW = 190.0, 400.0
LOAD, ASKED, READY, SLOW, ACT = "#c60", "#9cf", "#06c", "#393", "#999"
STEPS_S = (10, 20, 60, 120, 300)


def drawn(line: Sequence[Point], acts: Sequence[tuple[float, str, str]], title: str) -> str:
    last = line[-1]["t"] or 1.0
    count = max(max(one["load"] or 0, one["ready"] or 0, one["asked"] or 0) for one in line)
    slow = max((one["p95_s"] or 0 for one in line), default=0) or 1.0

    def x(seconds: float) -> float:
        return LEFT + WIDE * seconds / last

    def path(name: str, base: float, most: float, colour: str) -> str:
        points = " ".join(
            f"{x(one['t'] or 0):.1f},{base - HIGH * value / most:.1f}"
            for one in line
            if (value := one[name]) is not None
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'

    every = next((one for one in STEPS_S if last / one <= 12), STEPS_S[-1])
    ticks = "".join(_label(x(at), BELOW + 18, f"{at} s") for at in range(0, int(last) + 1, every))
    marks = "".join(
        f'<path d="M{x(at):.1f} {ABOVE - HIGH:.0f}V{ABOVE:.0f}" stroke="{ACT}" stroke-dasharray="2 3">'
        f"<title>{what}, {why}</title></path>"
        for at, what, why in acts
    )
    axes = "".join(
        f'<path d="M{LEFT:.0f} {base - HIGH:.0f}V{base:.0f}H{LEFT + WIDE:.0f}" fill="none" stroke="#999"/>'
        for base in (ABOVE, BELOW)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 430" font-family="sans-serif" font-size="13">'
        f'<rect width="880" height="430" fill="#fff"/>{axes}{ticks}{marks}'
        f"{_label(8, 36, f'{count:g}')}{_label(8, 246, f'{slow:.2g} s')}{_label(LEFT, 18, title)}"
        f"{_label(300, 18, 'load (replicas kept busy)', LOAD)}{_label(480, 18, 'replicas asked for', ASKED)}"
        f"{_label(610, 18, 'that serve', READY)}{_label(690, 18, '¦ act', ACT)}"
        f"{_label(LEFT, 230, 'p95 of the calls of the last 3 s', SLOW)}"
        f"{path('load', ABOVE, count, LOAD)}{path('asked', ABOVE, count, ASKED)}{path('ready', ABOVE, count, READY)}"
        f"{path('p95_s', BELOW, slow, SLOW)}</svg>\n"
    )


def _label(x: float, y: float, text: str, colour: str = "#333") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}">{text}</text>'
