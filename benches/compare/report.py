"""Figures of a run: medians, ratios to the limits, the table and the JSON."""

import json
import statistics
from dataclasses import dataclass, field

COLUMNS = (
    "figure", "program", "value", "limit", "ratio", "CPU s", "CPU ratio",
    "peak MB", "idle MB", "records", "missed", "doubled",
)  # fmt: skip
DASH = "–"


@dataclass
class Figure:
    """What was measured under one name for one program."""

    name: str
    program: str
    unit: str
    # Names of limits whose sum is the limit.
    limits: tuple
    # By kind: value, cpu, peak, idle; one number for each run.
    values: dict = field(default_factory=dict)
    records: int | None = None
    missed: int = 0
    doubled: int = 0
    # Why the figure does not count.
    void: str = ""
    remark: str = ""
    # A limit that is computed, in the unit of the figure.
    bound: float | None = None
    # For the plot: users or accounts, how many, and what was done.
    at: tuple | None = None


class Results:
    def __init__(self):
        self.figures = {}
        self.limits = {}
        self.failures = []

    def limit(self, name, figures):
        self.limits.setdefault(name, []).append(figures)

    def add(
        self,
        name,
        program,
        value,
        limits=(),
        *,
        unit="s",
        verdict=None,
        remark="",
        bound=None,
        at=None,
        **more,
    ):
        """One run. `verdict`: a wrong result voids the figure, whatever the other runs say."""
        fresh = Figure(name, program, unit, tuple(limits))
        figure = self.figures.setdefault((name, program), fresh)
        given = {"value": value, **more}
        for kind, number in given.items():
            if number is None:
                continue
            figure.values.setdefault(kind, []).append(number)
        figure.remark, figure.bound, figure.at = remark, bound, at
        if verdict:
            figure.records = verdict.records
            figure.missed += verdict.missed
            figure.doubled += verdict.doubled
            figure.void = figure.void or verdict.void

    def fail(self, part, error):
        self.failures.append(f"{part}: {error}")


def median(figure, kind):
    return statistics.median(figure.values[kind]) if figure.values.get(kind) else None


def limit_of(results, figure, kind):
    """The sum of the medians of the limits, or None if one was not measured."""
    if figure.bound is not None:
        return figure.bound if kind == "wall" else None
    if not figure.limits or any(name not in results.limits for name in figure.limits):
        return None
    return sum(limit_median(results, name, kind) for name in figure.limits)


def limit_median(results, name, kind):
    return statistics.median(run[kind] for run in results.limits[name])


def shown(number, digits=3):
    """Three figures that count; whole numbers above 100."""
    if number is None:
        return DASH
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.{digits}g}"


def row(results, figure):
    value, cpu = median(figure, "value"), median(figure, "cpu")
    wall_limit, cpu_limit = limit_of(results, figure, "wall"), limit_of(results, figure, "cpu")
    cells = [figure.name, figure.program]
    if figure.void:
        cells += [f"void: {figure.void}".replace("|", "/"), shown(wall_limit), *[DASH] * 5]
    else:
        cells += [f"{shown(value)} {figure.unit}", shown(wall_limit)]
        cells.append(shown(value / wall_limit) if wall_limit and value is not None else DASH)
        cells.append(shown(cpu))
        cells.append(shown(cpu / cpu_limit) if cpu_limit and cpu is not None else DASH)
        cells += [shown(median(figure, "peak")), shown(median(figure, "idle"))]
    checked = figure.records is not None
    cells += [
        f"{n:,}" if checked else DASH for n in (figure.records or 0, figure.missed, figure.doubled)
    ]
    return cells


def limit_rows(results):
    for name in results.limits:
        runs = results.limits[name]
        wall, cpu = (limit_median(results, name, kind) for kind in ("wall", "cpu"))
        value = f"{shown(wall)} s"
        if "each_ms" in runs[0]:
            value = f"{shown(statistics.median(run['each_ms'] for run in runs))} ms each"
        records = runs[0].get("records")
        counted = f"{records:,}" if records else DASH
        yield [name, "limit", value, DASH, DASH, shown(cpu), *[DASH] * 3, counted, DASH, DASH]


def comparisons(results, programs):
    """The ratios of the other programs to the first, figure by figure."""
    for (name, program), figure in results.figures.items():
        before = results.figures.get((name, programs[0]))
        if program == programs[0] or program not in programs or not before:
            continue
        if before.void or figure.void:
            continue
        kinds = [kind for kind in figure.values if before.values.get(kind)]
        ratios = [f"{kind} {shown(quotient(figure, before, kind))}" for kind in kinds]
        yield f"- {name}: {program} ÷ {programs[0]}: {', '.join(ratios)}"


def quotient(figure, before, kind):
    divisor = median(before, kind)
    return median(figure, kind) / divisor if divisor else None


def table(results, programs=()):
    rows = [list(COLUMNS), ["---"] * 2 + ["--:"] * (len(COLUMNS) - 2)]
    rows += limit_rows(results)
    rows += [row(results, figure) for figure in results.figures.values()]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    if len(programs) > 1:
        lines += ["", *comparisons(results, programs)]
    remarks = [f"- {f.name}, {f.program}: {f.remark}" for f in results.figures.values() if f.remark]
    failures = [f"- failed: {failure}" for failure in results.failures]
    return "\n".join(lines + ([""] + remarks + failures if remarks or failures else []))


def document(results, facts):
    figures = [
        vars(figure)
        | {
            "median": {kind: median(figure, kind) for kind in figure.values},
            "limit": {kind: limit_of(results, figure, kind) for kind in ("wall", "cpu")},
        }
        for figure in results.figures.values()
    ]
    content = facts | {"limits": results.limits, "figures": figures, "failures": results.failures}
    return json.dumps(content, indent=1, ensure_ascii=False)
