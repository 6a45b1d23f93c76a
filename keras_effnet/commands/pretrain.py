"""`keras-effnet pretrain`: the reference's recipe from random weights, on one host or several."""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from typing import Any

from keras_effnet.commands.flags import folder_path, whole_number
from keras_effnet.commands.models import VARIANT, choose
from keras_effnet.commands.printing import stopped
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.variants import get_variant
from keras_effnet.pictures.listing import find_data, read_listing
from keras_effnet.pictures.sources.tfds import PREFIX, data_folder, split_name
from keras_effnet.pretrain.examples import (
    RecordFeatures,
    check_records,
    count_tfds,
    from_folders,
    from_listing,
    from_tfds,
    from_tfrecords,
    in_split,
)
from keras_effnet.pretrain.recipe import Recipe, check_free
from keras_effnet.system.devices import Share, join
from keras_effnet.system.progress import Progress
from keras_effnet.system.quiet import check_backend, import_keras
from keras_effnet.system.signals import terminable
from keras_effnet.train.folder import MODEL

NAME = "pretrain"
HELP = "train from random weights with the reference's recipe (for a few hundred photographs: train)"
EXAMPLES = """\
  keras-effnet pretrain imagenet/train --validation imagenet/val --model b0 --out runs/b0
  keras-effnet pretrain tfds:cifar10 --size 64 --epochs 30 --validation test --out runs/cifar
  keras-effnet pretrain 'records/train-*' --format tfrecords --classes 100 --out runs/records"""
FORMATS = ("folders", "tfrecords", "tfds")
# name of the value in the recipe → type, and what it is; the recipe's defaults are the reference's
VALUES = {
    "epochs": (int, "passes over the pictures (default: 350)"),
    "batch_size": (int, "pictures in a step, on all hosts together (default: 256)"),
    "learning_rate": (float, "for 256 pictures in a step (default: 0.016)"),
    "warmup_epochs": (float, "over which the learning rate grows from 0 (default: 5)"),
    "ema": (float, "decay of the weights' average in each step; 0 for none (default: 0.9999)"),
    "weight_decay": (float, "half of it times the sum of squares is in the loss (default: 1e-5)"),
    "label_smoothing": (float, "0-1 (default: 0.1)"),
    "drop_connect_rate": (float, "at the last block, 0-1 (default: 0.2)"),
    "augment": (str, "autoaugment, randaugment or none (default: autoaugment)"),
    "augment_ops": (int, "RandAugment's operations for each picture; 0 for no augmentation (default: 2)"),
    "augment_strength": (float, "RandAugment's strength, 0-1 (default: 0.5)"),
    "crop_area": (
        float,
        "least share of a picture in a random crop; 1: the usual crop, no flip (default: 0.08)",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder with a folder for each class, CSV (file,label[,split]), TFRECORD pattern, or tfds name",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what DATA is (default: folders, or a CSV file; tfds for tfds:NAME[/config][:split], as train takes it)",
    )
    parser.add_argument("--validation", metavar="DATA", help="the same for validation; with tfds: a split")
    parser.add_argument("--split", help="tfds: the split to train on (default: train)")
    parser.add_argument("--data-dir", metavar="DIR", help="tfds: where the data set was prepared")
    parser.add_argument("--classes", type=whole_number(2), default=1000, help="tfrecords (default: 1000)")
    parser.add_argument("--count", type=whole_number(1), help="tfrecords: records; default: count them")
    parser.add_argument(
        "--image-feature", metavar="NAME", help="tfrecords: encoded picture (default: image/encoded)"
    )
    parser.add_argument(
        "--label-feature", metavar="NAME", help="tfrecords: class index (default: image/class/label)"
    )
    parser.add_argument(
        "--label-offset", type=int, metavar="N", help="tfrecords: index of the first class (default: 1)"
    )
    parser.add_argument("--model", default="b0", metavar="VARIANT", help="variant to train (default: b0)")
    parser.add_argument("--size", type=whole_number(32), metavar="N", help="side of the pictures in pixels")
    parser.add_argument("--out", required=True, type=folder_path, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of weights, order and crops")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    recipe = parser.add_argument_group("recipe", "the defaults are the reference's")
    for name, (kind, meaning) in VALUES.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=meaning)
    several = parser.add_argument_group("several devices or hosts")
    several.add_argument(
        "--strategy", choices=("none", "mirrored"), default="none", help="all GPUs of this host (TensorFlow)"
    )
    add_hosts(several)


def check(arguments: argparse.Namespace) -> None:
    _understand(arguments)
    choose(arguments.model, (VARIANT,))
    named = [arguments.image_feature, arguments.label_feature, arguments.label_offset]
    if arguments.format != "tfrecords" and named != [None] * 3:
        raise InvalidInputError(
            "Expected --format tfrecords with --image-feature, --label-feature and --label-offset. Received: "
            f"{arguments.format}."
        )
    given = {name: getattr(arguments, name) for name in VALUES}
    arguments.recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    if not arguments.resume and arguments.process_id == 0:
        check_free(arguments.out)
    check_backend()
    count = _count(arguments)
    if count is not None:
        arguments.recipe.check_count(count)


def _understand(arguments: argparse.Namespace) -> None:
    """Split `tfds:NAME:split` into what `--format tfds` means; a split of the validation is named after its set too."""
    if arguments.data.startswith(PREFIX) and arguments.format in (None, "tfds"):
        arguments.format = "tfds"
        arguments.data, split = split_name(arguments.data.removeprefix(PREFIX))
        if split and arguments.split:
            raise InvalidInputError(
                f"Expected one split to train on. Received: {split!r} and --split {arguments.split}. Leave one out."
            )
        arguments.split = split or arguments.split
        arguments.data_dir = arguments.data_dir or str(data_folder())
        if (arguments.validation or "").startswith(PREFIX):
            name, checks = split_name(arguments.validation.removeprefix(PREFIX))
            if name != arguments.data or not checks:
                raise InvalidInputError(
                    f"Expected --validation as a split of the same data set, {PREFIX}{arguments.data}:SPLIT. Received: "
                    f"{arguments.validation!r}."
                )
            arguments.validation = checks
    arguments.format, arguments.split = arguments.format or "folders", arguments.split or "train"


def _count(arguments: argparse.Namespace) -> int | None:
    """How many pictures there are to train on, None where only reading all records tells; and is the data there?"""
    data, checks = arguments.data, arguments.validation
    if arguments.format == "tfds":
        if checks:
            count_tfds(data, checks, data_dir=arguments.data_dir)
        return count_tfds(data, arguments.split, data_dir=arguments.data_dir)
    if arguments.format == "tfrecords":
        for pattern in filter(None, (data, checks)):
            check_records(pattern)
        return None if arguments.count is None else int(arguments.count)
    if checks:
        find_data(checks)
    arguments.listing = read_listing(data, several=False)
    return len(in_split(arguments.listing, "train"))


def add_hosts(parser: Any) -> None:
    """The options of a training command that runs on several hosts; `join_hosts` reads them."""
    parser.add_argument("--hosts", type=whole_number(1), default=1, metavar="N", help="processes (JAX)")
    parser.add_argument(
        "--process-id", type=whole_number(0), default=0, metavar="I", help="of this one, from 0"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same on all")


def join_hosts(arguments: argparse.Namespace) -> Share:
    """The `Share` of this process. Call it before Keras is imported: several hosts need JAX."""
    if arguments.hosts == 1:
        if arguments.process_id or arguments.coordinator:
            raise InvalidInputError("Expected --hosts N with --process-id and --coordinator. Received: 1.")
        return Share()
    if arguments.coordinator is None:
        raise InvalidInputError("Expected --coordinator HOST:PORT with --hosts. Received: none.")
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return join(arguments.coordinator, arguments.hosts, arguments.process_id)


def run(arguments: argparse.Namespace) -> int:
    # of several processes each dies of SIGTERM at once: while they wait for each other in native code, no
    # exception could be raised
    with terminable() if arguments.hosts == 1 else nullcontext():
        try:
            return _run(arguments)
        except KeyboardInterrupt as stop:
            return stopped(arguments, stop, begun=arguments.out.is_dir())


def _run(arguments: argparse.Namespace) -> int:
    share = join_hosts(arguments)
    import_keras()
    from keras_effnet.pretrain import pretrain

    progress = Progress(quiet=arguments.quiet)
    train, validation = _examples(arguments)
    pretrain(
        get_variant(arguments.model),
        train,
        validation,
        out=arguments.out,
        recipe=arguments.recipe,
        size=arguments.size,
        seed=arguments.seed,
        share=share,
        strategy=arguments.strategy,
        resume=arguments.resume,
        callbacks=[progress.epochs("pretraining")] if share.writes else [],
        verbose=progress.fit_verbosity,
    )
    if share.writes:
        print(arguments.out / MODEL)
    return 0


def _examples(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """What to train on and what to validate with, None for nothing."""
    data, checks = arguments.data, arguments.validation
    features = _features(arguments)
    if arguments.format == "tfds":
        splits = [arguments.split, *([checks] if checks else [])]
        train, *more = (from_tfds(data, split, data_dir=arguments.data_dir) for split in splits)
    elif arguments.format == "tfrecords":
        train = from_tfrecords(data, arguments.classes, count=arguments.count, features=features)
        more = [from_tfrecords(checks, arguments.classes, features=features)] if checks else []
    else:
        listing = arguments.listing
        train = from_listing(listing)
        more = []
        if checks:
            more = [from_folders(checks)]
        elif len(listing.of("validation")):
            more = [from_listing(listing, "validation")]
    return train, more[0] if more else None


def _features(arguments: argparse.Namespace) -> RecordFeatures:
    """What the parts of a record are said to be called."""
    given = {
        "image": arguments.image_feature,
        "label": arguments.label_feature,
        "offset": arguments.label_offset,
    }
    return RecordFeatures(**{name: value for name, value in given.items() if value is not None})
