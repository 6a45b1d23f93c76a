"""The one reader of --model: a variant, a Keras file, the folder of a training run, or an exported file.

The name of a published variant is that variant, whatever else is called so in the current folder (`./b0` is
the file). Anything else is a path, and its content tells what it is. All that can be told to be wrong with a
name is told by `choose` and `check_weights`, before Keras is imported.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.commands.flags import weights_of
from keras_effnet.errors import EffNetError, InvalidInputError, WeightsError
from keras_effnet.export import formats
from keras_effnet.export.formats import ONNX, SAVED_MODEL, TFLITE, format_of, unreadable_keras
from keras_effnet.export.legacy import from_saved_model, has_layers_of_keras, holds_code, lambda_refused
from keras_effnet.network.variants import VARIANTS, Variant, get_variant, identify
from keras_effnet.pictures.framing import Framing, image_shape, margin_layer_name
from keras_effnet.pictures.labels import IMAGENET_CLASSES, imagenet_labels, labels_in_name, numbered_labels
from keras_effnet.system.files import reachable
from keras_effnet.system.quiet import import_keras
from keras_effnet.train.folder import LABELS, trained_model
from keras_effnet.weights.catalog import SET_NAMES
from keras_effnet.weights.checkpoint import TOP_LAYER
from keras_effnet.weights.readers import READERS, open_checkpoint, tensorflow
from keras_effnet.weights.sources import check_variant, find_set, fitting_set, plan_weights, variant_of_file

VARIANT, KERAS = "variant", formats.KERAS  # beside the formats of exported files
NETWORKS = (VARIANT, KERAS)  # what has layers
ARTEFACTS = (KERAS, SAVED_MODEL, TFLITE, ONNX)
ALL = (VARIANT, *ARTEFACTS)
DEFAULT = "lite0"  # where neither --model nor a weight file says another
_WORDS = {  # what may be passed, and what somebody passed
    VARIANT: ("a variant", "the name of a variant"),
    KERAS: (
        "a Keras file (.keras, .h5), a SavedModel of Keras 2 or the folder of a training run",
        "a Keras file",
    ),
    SAVED_MODEL: ("a SavedModel folder", "a SavedModel"),
    TFLITE: ("a .tflite file", "a TFLite file"),
    ONNX: ("an .onnx file", "an ONNX file"),
}
_CONFIG_BYTES = 1 << 26  # of a network's description; a thousandth is usual


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What somebody named, before anything heavy is imported.

    Attributes:
        text: what was typed.
        name: for messages and file names: `b0`, or the file's name without its ending.
        format: one of `ALL`.
        variant: for a variant.
        path: for everything else.
        labels: the file with class names that belongs to it, if there is one.
    """

    text: str
    name: str
    format: str
    variant: Variant | None = None
    path: Path | None = None
    labels: Path | None = None

    def model(self, arguments: argparse.Namespace, *, input_shape: tuple[int, int, int] | None = None) -> Any:
        """The Keras model: a variant with `--weights` and as many classes as they have, or what the file holds.

        A published set that was judged on another crop than the variant's own says so in the model, and where it
        was judged at another size, the model has that one. `input_shape` or else `--size` comes first.

        Raises:
            InvalidInputError: a file that Keras cannot read, or whose model takes something else than pictures.
            WeightsError: weights that are missing, damaged or of another network.
        """
        import_keras()
        if self.variant is None:
            loaded = load_keras(str(self.path))
            image_shape(loaded)
            return loaded
        import keras

        from keras_effnet.applications import EfficientNet

        weights = weights_of(arguments)
        entry = find_set(weights, self.variant) if weights in SET_NAMES else None
        if input_shape is None:
            side = arguments.size or (entry.resolution if entry else self.variant.resolution)
            input_shape = (side, side, 3)
        pixels = inputs = keras.Input(input_shape)
        if entry is not None:
            usual = Framing(self.variant.interpolation)
            framing = entry.framing(pixels.shape[1])
            if framing != usual:  # it computes nothing: its name tells how photographs are read
                told = None if framing.interpolation == usual.interpolation else framing.interpolation
                pixels = keras.layers.Identity(name=margin_layer_name(framing.margin, told))(inputs)
        return EfficientNet(
            self.variant,
            weights=weights,
            classes=classes_in(weights),
            input_tensor=pixels,
            preprocessing=arguments.preprocessing,
        )

    def side_for(self, model: Any, size: tuple[int | None, int | None], given: int | None) -> int:
        """The side of the pictures of a Keras model whose input is `size`; see `side_of`, also for what it raises."""
        variant = self.variant or identify(model)
        return side_of(self.text, size, given, variant.name if variant else None)

    def labels_for(
        self,
        file: str | None,
        classes: int,
        *,
        carried: tuple[str, ...] | None,
        known: tuple[str, ...] | None,
    ) -> tuple[str, ...]:
        """Class names for a Keras model: of `--labels`; those it carries; of the file beside it; known ones, ImageNet's."""
        if file is not None:
            return read_labels(file, classes)
        if carried is None and self.labels is not None:
            return read_labels(self.labels, classes)
        return carried or known or numbered_labels(classes)

    def labels_told(self, arguments: argparse.Namespace) -> tuple[str, ...] | None:
        """The class names that `labels_for` will give, where they are known before Keras is imported; else None."""
        if arguments.labels is not None:
            return read_labels(arguments.labels)
        if self.variant is not None:
            return imagenet_labels() if weights_of(arguments) in SET_NAMES else None
        if arguments.output is not None or self.path is None or self.path.is_dir():
            return None  # which output's is to be seen in the network
        carried = set(filter(None, map(labels_in_name, _identities(_description(self.path)))))
        if len(carried) == 1:
            return carried.pop()
        return read_labels(self.labels) if not carried and self.labels is not None else None


def choose(text: str, takes: Sequence[str], *, flag: str = "--model") -> Choice:
    """Find out what a name means; a command `takes` some formats of `ALL`. Nothing heavy is imported.

    Raises:
        InvalidInputError: nothing of that name, nothing that can be used, or something else than the command
            takes; the message, which calls the argument `flag`, says what to do.
    """
    choice = _choice(text, takes, flag)
    if choice.format in takes:
        return choice
    received = f"{text!r}, {_WORDS[choice.format][1]}"
    if choice.variant is not None:
        advice = (
            f"Export it first: keras-effnet export {choice.name}; for a file of that name, write ./{text}."
        )
    elif takes == (VARIANT,):
        advice = "Name the variant that it is of, such as b0; a command that takes weights takes the file as those."
    else:
        advice = "Exported files have lost the layers: pass the variant or the file that it was made from."
    raise InvalidInputError(f"Expected {_expected(takes, flag)}. Received: {received}. {advice}")


def _choice(text: str, takes: Sequence[str], flag: str) -> Choice:
    try:
        variant = get_variant(text)
    except InvalidInputError as error:
        unknown = error
    else:
        return Choice(text=text, name=variant.name, format=VARIANT, variant=variant)
    path = Path(text).expanduser()
    with reachable(path, _expected(takes, flag)):
        if path.exists():
            return _choice_of_path(text, path, takes, flag)
    if VARIANT in takes and path.name == text and not path.suffix:
        raise InvalidInputError(f"{unknown} No file or folder here is called so either.") from None
    raise InvalidInputError(
        f"Expected {_expected(takes, flag)}. Received: {text!r}, which does not exist. Check the path."
    )


def _choice_of_path(text: str, path: Path, takes: Sequence[str], flag: str) -> Choice:
    """What the content of a file or folder says."""
    format_ = format_of(path)
    if path.is_dir():
        if format_ == SAVED_MODEL and SAVED_MODEL not in takes and has_layers_of_keras(path):
            return Choice(text=text, name=path.resolve().name, format=KERAS, path=path)
        if format_ is not None:
            return Choice(text=text, name=path.name, format=format_, path=path)
        if (found := trained_model(path)) is not None:
            _check_description(found[0])
            return Choice(
                text=text, name=path.resolve().name, format=KERAS, path=found[0], labels=_there(found[1])
            )
        raise InvalidInputError(
            f"Expected {_expected(takes, flag)}. Received: {text!r}, a folder with neither saved_model.pb nor a "
            "trained model.keras in it. Pass the model's own folder or file."
        )
    if format_ is not None:
        labels = None
        if format_ == KERAS:
            _check_description(path)
            labels = _there(path.with_name(LABELS))
        return Choice(text=text, name=path.stem, format=format_, path=path, labels=labels)
    if any(reader.matches(path) for reader in READERS):
        raise _weights_only(path)
    raise InvalidInputError(
        f"Expected {_expected(takes, flag)}. Received: {text!r}, which is none of these. Check the path."
    )


def _expected(takes: Sequence[str], flag: str) -> str:
    *most, last = (_WORDS[format_][0] for format_ in takes)
    return f"{flag} as {', '.join(most)} or {last}" if most else f"{flag} as {last}"


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _weights_only(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"Expected a whole model in {str(path)!r}. Received: weights alone, without the network they belong to. "
        "Pass the file as --weights, and its variant as --model."
    )


def _check_description(path: Path) -> None:
    """Make sure that a Keras file describes a network, and one without code. Its JSON text is read, no more.

    Raises:
        InvalidInputError: damaged; weights alone; or a Lambda, whose Python code Keras would have to run.
    """
    try:
        description = _description(path)
    except InvalidInputError:
        raise
    except Exception as error:  # whatever the reader of zip, JSON or HDF5 met
        raise unreadable_keras(path, error) from error
    if holds_code(description):
        raise InvalidInputError(lambda_refused(path))


def _description(path: Path) -> Any:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("config.json") as member:
            return json.loads(member.read(_CONFIG_BYTES))
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise _weights_only(path)
        return json.loads(file.attrs["model_config"])


def _identities(description: Any) -> Iterator[str]:
    """The names of the `Identity` layers in a network's description."""
    if isinstance(description, dict):
        if description.get("class_name") == "Identity":
            yield str(description["config"]["name"])
        description = list(description.values())
    if isinstance(description, list):
        for part in description:
            yield from _identities(part)


def load_keras(path: str | Path) -> Any:
    """The model of a Keras file, or of a SavedModel that Keras 2 saved; nothing in it is executed.

    Raises:
        InvalidInputError: one that Keras cannot read.
        ExportError: a SavedModel whose layers Keras 3 does not have.
    """
    if Path(path).is_dir():
        import_keras()
        return from_saved_model(path)
    _check_description(Path(path))
    import_keras()
    from keras_effnet.export.runners import network_of

    return network_of(Path(path))


def choose_network(arguments: argparse.Namespace, takes: Sequence[str]) -> Choice:
    """What `--model` means, with `--weights` checked; without `--model` the variant that a weight file is of."""
    choice = choose(arguments.model or _variant_of_weights(weights_of(arguments)), takes)
    check_weights(choice, arguments)
    return choice


def check_weights(choice: Choice, arguments: argparse.Namespace) -> None:
    """Make sure that `--weights` names something, and something for this model. Nothing is fetched.

    Raises:
        InvalidInputError: neither a set nor a file; a `--preprocessing` that is not theirs; or either given with
            a file, which has weights and a preprocessing of its own.
        WeightsError: no such set for the variant; a file that is missing, damaged or of another variant, or
            that leaves its preprocessing open where `--preprocessing` does not say it.
    """
    if choice.variant is None:
        for flag in ("weights", "preprocessing"):
            if (given := getattr(arguments, flag)) is not None:
                raise InvalidInputError(
                    f"Expected --{flag} with a variant only: {choice.text!r} has its own. Received: --{flag} {given}. "
                    "Leave it out, or name the variant."
                )
        return
    weights = weights_of(arguments)
    if weights in SET_NAMES:
        fitting_set(weights, choice.variant, arguments.preprocessing)
        return
    plan_weights(weights, choice.variant, arguments.preprocessing)
    if weights is not None:
        check_variant(weights, choice.variant)


def _variant_of_weights(weights: str | None) -> str:
    """The variant to take where none was named."""
    if weights is None or weights in SET_NAMES:
        return DEFAULT
    try:
        return variant_of_file(weights) or DEFAULT
    except (EffNetError, OSError):
        return DEFAULT  # `check_weights` has the word for it


def classes_in(weights: str | None) -> int:
    """How many classes the classifier in a weight file has; 1,000 where that cannot be seen from outside."""
    if weights is None or weights in SET_NAMES:
        return IMAGENET_CLASSES
    path = Path(weights)
    with reachable(path, "a weight file that can be read", WeightsError):
        absent = not path.exists() and not Path(f"{path}.index").exists()
        if absent or tensorflow.is_archive(path):  # the builder has the word for it; unpacking takes long
            return IMAGENET_CLASSES
    with open_checkpoint(path) as checkpoint:
        bias = checkpoint.layers.get(TOP_LAYER, {}).get("bias")
        return int(bias.shape[-1]) if bias is not None and bias.shape else IMAGENET_CLASSES


def side_of(name: str, size: tuple[int | None, int | None], given: int | None, variant: str | None) -> int:
    """The side of the square that a model sees, in pixels.

    Its own `size`, (H, W), comes first; where it takes any, `--size`, or the published variant's that it is.

    Raises:
        InvalidInputError: no square, another size than the model's, or no size at all.
    """
    height, width = size
    if height is not None and width is not None and height != width:
        raise InvalidInputError(
            f"Expected a model with a square input, which photographs are cropped to. Received: {name!r} with "
            f"{height} × {width} pixels. In Python, pass it arrays of that size."
        )
    fixed = height or width
    if given is not None and fixed not in (None, given):
        raise InvalidInputError(f"Expected --size {fixed}, which {name!r} needs. Received: {given}.")
    side = fixed or given or (VARIANTS[variant].resolution if variant in VARIANTS else None)
    if side is None:
        raise InvalidInputError(
            f"Expected --size N for {name!r}, which takes pictures of any size. Received: none. "
            "Pass for example --size 224."
        )
    return int(side)


def read_labels(file: str | Path, classes: int | None = None) -> tuple[str, ...]:
    """The class names in a text file, one on each line.

    Raises:
        InvalidInputError: a file that cannot be read, or another number of names than there are classes.
    """
    path = Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"Expected class names in {str(file)!r}. It cannot be read ({error})."
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if classes is not None and len(names) != classes:
        raise InvalidInputError(
            f"Expected {classes} class names in {str(file)!r}, one for each output. Received: {len(names)}."
        )
    return names
