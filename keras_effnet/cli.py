"""`keras-effnet`: list, predict, export, verify, benchmark, convert, cost, scale, explain, train, pretrain.

Exit codes: 0 done; 1 an artefact failed verification; 2 wrong use, with one line that says what was
expected, what came and what to do; 130 interrupted; 143 terminated (train, pretrain).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from decimal import Decimal
from types import ModuleType
from typing import NoReturn

from keras_effnet.commands import (
    benchmark,
    convert,
    cost,
    explain,
    export,
    list_variants,
    predict,
    pretrain,
    scale,
    train,
    verify,
)

COMMANDS: tuple[ModuleType, ...] = (
    list_variants,
    predict,
    export,
    verify,
    benchmark,
    convert,
    cost,
    scale,
    explain,
    train,
    pretrain,
)
FAILED_VERIFICATION, WRONG_USE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Answers wrong use in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}. See '{self.prog} --help'.", file=sys.stderr)
        raise SystemExit(WRONG_USE)


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    root = _Parser(
        prog="keras-effnet",
        description="EfficientNet for Keras: classify photographs, export verified SavedModel, TFLite and ONNX.",
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in COMMANDS:
        added = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_arguments(added)
        added.set_defaults(run=module.run)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(_spelled_out(given))
    arguments.given = given
    from keras_effnet.errors import EffNetError, EffNetWarning, VerificationError
    from keras_effnet.system.access import system_said
    from keras_effnet.system.signals import not_swallowed

    try:
        with warnings.catch_warnings(), not_swallowed():
            # ours belong to what a command has to say; how the libraries' are filtered stays as it was
            warnings.simplefilter("default", EffNetWarning)
            warnings.showwarning = _show_warning
            return int(arguments.run(arguments))
    except VerificationError as error:
        return _say(error, FAILED_VERIFICATION)
    except EffNetError as error:
        return _say(error, WRONG_USE)
    except KeyboardInterrupt:
        print("keras-effnet: interrupted; nothing half-written was left", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, `head` say, has enough
        return 0
    except OSError as error:  # where no command has a better word for it
        named = f"Received: {os.fspath(error.filename)!r}. " if isinstance(error.filename, str) else ""
        print(
            f"keras-effnet: Expected files and folders that can be read and written. {named}The system said: "
            f"{system_said(error)}. Check the path and its permissions.",
            file=sys.stderr,
        )
        return WRONG_USE


def _spelled_out(argv: Sequence[str]) -> list[str]:
    """Negative numbers without an exponent: argparse takes −1e-3 for an option, but −0.001 for a number."""
    return [
        f"{Decimal(repr(float(word))):f}"
        if re.fullmatch(r"-(\d+\.?\d*|\.\d+)[eE][+-]?\d+", word) and math.isfinite(float(word))
        else word
        for word in argv
    ]


def _say(error: Exception, code: int) -> int:
    print(f"keras-effnet: {error}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our own warnings in one line; those of the libraries not at all."""
    from keras_effnet.errors import EffNetWarning

    if issubclass(category, EffNetWarning):
        print(f"keras-effnet: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
