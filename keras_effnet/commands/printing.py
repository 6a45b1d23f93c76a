"""What commands print alike: tables, and how to go on with what was interrupted."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from keras_effnet.system.signals import Terminated

INTERRUPTED, TERMINATED = 130, 143


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns as wide as their widest cell; the first `left` flush left, the others flush right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, ["─" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def stopped(arguments: argparse.Namespace, stop: KeyboardInterrupt, *, begun: bool) -> int:
    """Say how to go on, if there is something to go on with; the exit code. `cli.main` keeps what was typed in `given`."""
    told = f"go on with: {resume_line(arguments)}" if begun else "nothing was written yet"
    print(f"keras-effnet: interrupted; {told}", file=sys.stderr)
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def resume_line(arguments: argparse.Namespace) -> str:
    """What was typed, with `--resume`, as a shell reads it."""
    command, *rest = arguments.given
    flag = [] if arguments.resume else ["--resume"]
    return shlex.join(["keras-effnet", command, *flag, *rest])
