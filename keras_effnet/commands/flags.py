"""Options that several commands share, and what they come down to."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, counted, unknown_name, warn
from keras_effnet.network.conventions import CONVENTIONS
from keras_effnet.pictures.decoding import UnreadablePictureError, check_header
from keras_effnet.pictures.folders import list_images, sample_paths
from keras_effnet.pictures.framing import Framing

LATER = argparse.SUPPRESS  # absent unless given: the settings of the run decide when it is resumed
EVALUATION_LIMIT = 200  # photographs; more change the figures by less than their own error


def add_action(actions: Any, name: str, told: str, examples: str) -> argparse.ArgumentParser:
    """The parser of an action of a command, with a help like a command's; `examples` are lines."""
    added: argparse.ArgumentParser = actions.add_parser(
        name, help=told, description=told, epilog=f"examples:\n{examples}"
    )
    return added


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="SET|FILE|none",
        help="published set, weight file, or 'none' for random weights (default: imagenet)",
    )
    add_preprocessing(parser)


def add_preprocessing(parser: argparse.ArgumentParser, default: Any = None) -> None:
    parser.add_argument(
        "--preprocessing",
        default=default,
        type=preprocessing,
        metavar="NAME|MEAN,STD",
        help=f"what the weights were trained with, where their file does not say: {', '.join(CONVENTIONS)} "
        "(unit: x / 255), or mean and standard deviation of pixels 0-1, one or three numbers each (0.5,0.25)",
    )


def preprocessing(text: str) -> str | tuple[float, ...] | tuple[tuple[float, ...], ...]:
    """An argparse type: the name of a convention, or MEAN,STD with as many numbers for both."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    half = len(numbers) // 2
    return (numbers[:half], numbers[half:]) if half and len(numbers) % 2 == 0 else text


def expanded_path(text: str) -> Path:
    """An argparse type: a path, whose `~` is somebody's home."""
    return Path(text).expanduser()


def folder_path(text: str) -> Path:
    """An argparse type: a folder. An empty name, of a variable that is not set, would be the current one."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "expected a folder, received an empty name; pass . for the current one"
        )
    return expanded_path(text)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of text")


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="class names, one on each line (default: those in the model, labels.txt beside it, ImageNet's for its classifier)",
    )


def add_kinds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind",
        dest="kinds",
        nargs="+",
        default=[],
        metavar="[OUTPUT=]KIND",
        help="what an output is, where its layers do not show it: classes, sigmoid, sigmoids, logits, embedding or map",
    )


def kinds_of(arguments: argparse.Namespace) -> str | dict[str, str] | None:
    """The `kinds=` that `--kind` means.

    Raises:
        InvalidInputError: an output named twice, kinds with and without a name, or one that there is not.
    """
    from keras_effnet.export.kinds import KINDS  # for the commands that export, no others

    named = dict(text.rpartition("=")[::2] for text in arguments.kinds)
    if len(named) < len(arguments.kinds) or ("" in named and len(named) > 1):
        raise InvalidInputError(
            f"Expected --kind OUTPUT=KIND once for each output, or one --kind for the only one. Received: "
            f"{' '.join(arguments.kinds)}. Name each output once."
        )
    for kind in named.values():
        if kind not in KINDS:
            raise unknown_name("--kind", kind, KINDS)
    return named.get("", named) or None


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=whole_number(32),
        metavar="N",
        help="side of the input, in pixels: of a variant, or where a file leaves it open",
    )


def add_images(parser: argparse.ArgumentParser, default: str) -> None:
    """The photographs to verify on; `default` says which ones without the option."""
    parser.add_argument(
        "--images", type=expanded_path, metavar="DIR", help=f"photographs to verify on (default: {default})"
    )
    parser.add_argument(
        "--max-images",
        type=whole_number(1),
        default=EVALUATION_LIMIT,
        metavar="N",
        help=f"photographs to read from a folder at most (default: {EVALUATION_LIMIT})",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def whole_number(least: int) -> Any:
    """An argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, received {text!r}"
            )
        return number

    return parse


_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def amount(text: str) -> float:
    """An argparse type: a number above 0, with a unit if one likes: `800M`, `0.39G`, `5.3e6`, `16MB`."""
    found = re.fullmatch(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([kmgt]?)b?", text.strip().lower())
    number = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 such as 800M, 0.39G or 5.3e6, received {text!r}"
        )
    return number


def share(text: str) -> float:
    """An argparse type: a share above 0, up to 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and up to 1, received {text!r}")
    return number


def add_optional(parser: argparse.ArgumentParser, flag: str, kind: Any, metavar: str, text: str) -> None:
    """An option that the parsed arguments have where it is given."""
    parser.add_argument(flag, type=kind, default=LATER, metavar=metavar, help=text)


def weights_of(arguments: argparse.Namespace) -> str | None:
    """The `weights=` that `--weights` means; ImageNet's where it is not given."""
    given: str = "imagenet" if arguments.weights is None else arguments.weights
    if given.lower() == "none":
        return None
    return str(Path(given).expanduser()) if given.startswith("~") else given


def check_directory(directory: Path, *, limit: int = EVALUATION_LIMIT) -> None:
    """Make sure that `read_photographs` will find some, as far as their first bytes tell.

    Raises:
        InvalidInputError: not a directory, empty, or without a file that is a picture of not too many pixels.
    """
    check_any(check_header, _spread(directory, limit))


def check_any(check: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Make sure that one of several passes a check; where none does, the error of the first is raised."""
    first = None
    for item in items:
        try:
            check(item)
        except InvalidInputError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def read_photographs(
    directory: Path | None, size: int, framing: Framing, *, limit: int = EVALUATION_LIMIT
) -> tuple[npt.NDArray[np.uint8], list[Path]]:
    """Photographs of a directory, evenly spread over its sorted names, at most `limit`; None: the built-in eight.

    Returns:
        uint8 `[N, size, size, channels]`, and the file of each.

    Raises:
        InvalidInputError: not a directory, empty, or no picture in it can be decoded.

    Warns:
        EffNetWarning: some cannot, and are left out.
    """
    pictures, files, errors = [], [], []
    for path in sample_paths() if directory is None else _spread(directory, limit):
        try:
            pictures.append(framing.read(path, size))
        except UnreadablePictureError as error:
            errors.append(error)
        else:
            files.append(path)
    if not pictures:
        raise errors[0]
    if errors:
        warn(f"{counted(len(errors), 'picture')} left out of {len(errors) + len(files)}: {errors[0]}")
    return np.stack(pictures), files


def _spread(directory: Path, limit: int) -> list[Path]:
    paths = list_images(directory)
    if len(paths) > limit:
        paths = [paths[round(index)] for index in np.linspace(0, len(paths) - 1, limit)]
    return paths
