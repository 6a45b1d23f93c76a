"""What a command that can be resumed says when it is interrupted."""

from __future__ import annotations

import argparse
import shlex
import sys

from keras_effnet.system.signals import Terminated

INTERRUPTED, TERMINATED = 130, 143


def stopped(arguments: argparse.Namespace, stop: KeyboardInterrupt, *, begun: bool) -> int:
    """Say how to go on.

    Args:
        arguments: of the command; `cli.main` keeps what was typed in `given`.
        stop: what interrupted it.
        begun: whether there is something to go on with.

    Returns:
        The exit code.
    """
    told = f"go on with: {resume_line(arguments)}" if begun else "nothing was written yet"
    print(f"keras-effnet: interrupted; {told}", file=sys.stderr)
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def resume_line(arguments: argparse.Namespace) -> str:
    """What was typed, with `--resume`, as a shell reads it."""
    command, *rest = arguments.given
    flag = [] if arguments.resume else ["--resume"]
    return shlex.join(["keras-effnet", command, *flag, *rest])
