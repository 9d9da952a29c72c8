"""The page of the documentation with the table and the plot."""

import plot
import report
from processes import ROOT
from stage import say

PAGE = ROOT / "docs/benchmarks.md"
PICTURE = ROOT / "docs/pictures/benchmarks.svg"

TEXT = """<!-- Made by `benches/compare/run --write-docs`; do not edit. -->

# Benchmarks

Measured on {date} in one run; medians of {rounds}. `benches/README.md` says how each figure
and each limit is measured, and what voids a figure. Ratios to the limits of the same run travel
between machines better than seconds.

| | |
|---|---|
| processor | {processor}, {cores} cores, shared with the broker, the registry and the load server |
| memory | {memory_gb} GB |
| kernel | Linux {kernel} |
| broker | {broker} |
| directory, if none is named | {size}, pages of {page:,} |

{table}
{picture}"""
PICTURE_TEXT = """
Cost against size, on logarithmic axes:

![Time and memory against the number of users and of accounts](pictures/benchmarks.svg)
"""


def write(results, facts, size, programs):
    sizes = any(figure.at for figure in results.figures.values())
    if sizes:
        PICTURE.write_text(plot.drawn(results))
        say(f"written: {PICTURE.relative_to(ROOT)}")
    text = TEXT.format(
        **facts["machine"],
        size=size,
        page=size.page,
        date=facts["date"],
        rounds=facts["rounds"],
        broker=facts["broker"],
        table=report.table(results, programs),
        picture=PICTURE_TEXT if sizes else "",
    )
    PAGE.write_text(text)
    say(f"written: {PAGE.relative_to(ROOT)}")
