"""`keras-effnet`: list, predict, evaluate, export, verify, bundle, benchmark, convert, cost, scale, explain, train, pretrain.

Whatever is wrong with the arguments is told by a command's `check`, within half a second and before TensorFlow
is loaded; its `run` does the work.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, NoReturn

from keras_effnet.commands import (
    benchmark,
    bundle,
    convert,
    cost,
    evaluate,
    explain,
    export,
    list_variants,
    predict,
    pretrain,
    scale,
    train,
    verify,
)
from keras_effnet.commands.printing import INTERRUPTED
from keras_effnet.errors import EffNetError, EffNetWarning, VerificationError
from keras_effnet.system.files import system_said
from keras_effnet.system.signals import not_swallowed

COMMANDS: tuple[ModuleType, ...] = (
    list_variants,
    predict,
    evaluate,
    export,
    verify,
    bundle,
    benchmark,
    convert,
    cost,
    scale,
    explain,
    train,
    pretrain,
)
FAILED, WRONG_USE = 1, 2
EXIT_CODES = """exit codes:
  0  done
  1  finished, but an artefact failed verification or a picture could not be read
  2  wrong use; one line says what was expected, what came and what to do
  130 interrupted, 143 terminated"""
SHELLS = ("bash", "zsh", "tcsh")
_FILES = {"FILE", "IMAGE", "ARTEFACT", "DATA", "SRC", "DST", "CSV"}  # metavars that stand for a file


class _Parser(argparse.ArgumentParser):
    """Answers wrong use in one line instead of the whole usage, and a command without arguments with its help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        if not given and self._subparsers is not None:
            self.print_help()
            self.exit()
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}. See '{self.prog} --help'.", file=sys.stderr)
        raise SystemExit(WRONG_USE)


class _Version(argparse.Action):
    """What to name in a report of a fault."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        own, *others = (f"{name} {_version(name)}" for name in ("keras-effnet", "keras", "tensorflow"))
        print(f"{own} ({', '.join(others)}, python {platform.python_version()})")
        parser.exit()


def _version(distribution: str) -> str:
    from importlib import metadata  # it takes as long as everything else here

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


class _Completion(argparse.Action):
    """A script that teaches a shell the commands, their options and where files are meant."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, *_: Any) -> NoReturn:
        import shtab

        for action in _actions(parser):
            words = re.split(r"[|\W]", str(action.metavar or ""))
            if _FILES.intersection(words):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif "DIR" in words:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        print(shtab.complete(parser, values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    root = _Parser(
        prog="keras-effnet",
        description="EfficientNet for Keras: classify photographs, export verified SavedModel, TFLite and ONNX.",
        epilog=f"{EXIT_CODES}\n\n'keras-effnet COMMAND --help' has examples.",
    )
    root.add_argument(
        "--version", action=_Version, nargs=0, help="versions of this package and its libraries"
    )
    root.add_argument(
        "--print-completion",
        action=_Completion,
        choices=SHELLS,
        metavar="SHELL",
        help=f'completion script for {", ".join(SHELLS)}: eval "$(keras-effnet --print-completion bash)"',
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in COMMANDS:
        added = commands.add_parser(
            module.NAME, help=module.HELP, description=module.HELP, epilog=f"examples:\n{module.EXAMPLES}"
        )
        module.add_arguments(added)
        added.set_defaults(check=module.check, run=module.run)
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
    try:
        with warnings.catch_warnings(), not_swallowed():
            # ours belong to what a command has to say; how the libraries' are filtered stays as it was
            warnings.simplefilter("default", EffNetWarning)
            warnings.showwarning = _show_warning
            arguments.check(arguments)
            return int(arguments.run(arguments))
    except VerificationError as error:
        return _say(error, FAILED)
    except EffNetError as error:
        return _say(error, WRONG_USE)
    except KeyboardInterrupt:
        return _say("interrupted; nothing half-written was left", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, `head` say, has enough
        return 0
    except OSError as error:  # where no command has a better word for it
        named = f"Received: {os.fspath(error.filename)!r}. " if isinstance(error.filename, str) else ""
        return _say(
            f"Expected files and folders that can be read and written. {named}The system said: "
            f"{system_said(error)}. Check the path and its permissions.",
            WRONG_USE,
        )


def _spelled_out(argv: Sequence[str]) -> list[str]:
    """Negative numbers without an exponent: argparse takes −1e-3 for an option, but −0.001 for a number."""
    return [
        f"{Decimal(repr(float(word))):f}"
        if re.fullmatch(r"-(\d+\.?\d*|\.\d+)[eE][+-]?\d+", word) and math.isfinite(float(word))
        else word
        for word in argv
    ]


def _say(error: Exception | str, code: int) -> int:
    print(f"keras-effnet: {error}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our own warnings in one line; those of the libraries not at all."""
    if issubclass(category, EffNetWarning):
        print(f"keras-effnet: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
