"""A ready score for the searches: train a scaled baseline on a folder of pictures, for a given budget."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.baselines import Baseline, Stage, build
from keras_effnet.errors import InvalidInputError
from keras_effnet.scaling.study import fingerprint
from keras_effnet.system.quiet import import_keras

# the usual 0.99 remembers the initial statistics for longer than such a training lasts
SHORT_MOMENTUM = 0.9
PARTS = ("train", "validation")

# B0's pattern in five stages at 64 px: trains in seconds. Three repeats leave room for depth.
# fmt: off
SEARCH_BASELINE = Baseline(
    name="search64",
    title="Search64",
    stem_filters=16,
    stages=(
        Stage(repeats=1, kernel_size=3, stride=1, expand_ratio=1, filters_in=16, filters_out=16, se_ratio=0.25),
        Stage(repeats=2, kernel_size=3, stride=2, expand_ratio=4, filters_in=16, filters_out=24, se_ratio=0.25),
        Stage(repeats=3, kernel_size=5, stride=2, expand_ratio=4, filters_in=24, filters_out=40, se_ratio=0.25),
        Stage(repeats=3, kernel_size=3, stride=2, expand_ratio=4, filters_in=40, filters_out=64, se_ratio=0.25),
    ),
    top_filters=192,
    activation="swish",
    resolution=64,
    dropout=0.1,
    drop_connect_rate=0.1,
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class TrainOnFolder:
    """`evaluate(depth, width, resolution)`: validation accuracy after training from scratch.

    The same arguments and seed give the same score, in any process. For that each call ends Keras'
    session and turns TensorFlow's deterministic operators on. The random numbers of Python and NumPy go on
    afterwards where they were.

    Attributes:
        directory: folder with `train/` and `validation/`, each with a folder per class.
        baseline: what is scaled.
        epochs: budget: passes over the training pictures, at least 1.
        batch_size: pictures per step.
        learning_rate: peak of AdamW's, with a cosine decay to 0.
        seed: of weights, shuffling and augmentation.
    """

    directory: str | os.PathLike[str]
    baseline: Baseline = SEARCH_BASELINE
    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 3e-3
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """What makes two scores comparable: the budget, and which pictures these are.

        Raises:
            InvalidInputError: the folders are missing.
        """
        root = self.root()
        listing = {
            part: sorted(
                (path.relative_to(root).as_posix(), path.stat().st_size)
                for path in (root / part).rglob("*")
                if path.is_file()
            )
            for part in PARTS
        }
        return {
            "data": root.resolve().name,
            "classes": sum(path.is_dir() for path in (root / "train").iterdir()),
            **{part: len(files) for part, files in listing.items()},
            "pictures": fingerprint(listing),  # names and sizes: reading them all would take too long
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    def __call__(self, depth: float, width: float, resolution: int) -> float:
        """Train and evaluate at these factors; top-1 accuracy on `validation/`, 0–1.

        Raises:
            InvalidInputError: the folders are missing or disagree.
        """
        return self.score(self.baseline, depth=depth, width=width, resolution=resolution)

    def score(
        self, baseline: Baseline, *, depth: float = 1.0, width: float = 1.0, resolution: int | None = None
    ) -> float:
        """As a call, for another table."""
        with _seeded(self.seed) as keras:
            return self._trained(keras, baseline, depth, width, resolution)

    def _trained(
        self, keras: Any, baseline: Baseline, depth: float, width: float, resolution: int | None
    ) -> float:
        """Validation accuracy of a network after its training."""
        side = resolution or baseline.resolution
        train, validation, classes = self._pictures(keras, side)
        model = build(baseline, depth=depth, width=width, resolution=side, classes=classes)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = SHORT_MOMENTUM
        steps = self.epochs * len(train)
        model.compile(
            keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)),
            keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
            jit_compile=False,  # compiling takes longer than so short a training
        )
        model.fit(train, epochs=self.epochs, shuffle=False, verbose=0)
        return float(model.evaluate(validation, verbose=0, return_dict=True)["accuracy"])

    def root(self) -> Path:
        """The folder.

        Raises:
            InvalidInputError: `train/` or `validation/` is missing.
        """
        root = Path(self.directory)
        for part in PARTS:
            if not (root / part).is_dir():
                raise InvalidInputError(
                    f"Expected a folder with train/ and validation/. Received: {str(root)!r} without {part}/."
                )
        return root

    def _pictures(self, keras: Any, side: int) -> tuple[Any, Any, int]:
        """Training pictures, shuffled and mirrored; validation pictures; the number of classes."""
        import tensorflow as tf

        root = self.root()
        tf.config.experimental.enable_op_determinism()
        classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
        given = {"image_size": (side, side), "class_names": classes, "shuffle": False, "verbose": False}
        read = keras.utils.image_dataset_from_directory
        train = read(root / "train", batch_size=None, **given).cache()
        train = train.shuffle(len(train), seed=self.seed, reshuffle_each_iteration=True).batch(
            self.batch_size
        )
        # a draw for each place in the epoch; the pictures in these places change
        mirrored = tf.data.Dataset.zip(train, tf.data.Dataset.counter()).map(
            lambda batch, place: (
                tf.image.stateless_random_flip_left_right(batch[0], (self.seed, place)),
                batch[1],
            )
        )
        validation = read(root / "validation", batch_size=self.batch_size, **given)
        return mirrored, validation, len(classes)


@contextmanager
def _seeded(seed: int) -> Iterator[Any]:
    """Keras; within the block everything random begins at `seed`, and whoever asked keeps his random numbers."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        if parent_process() is not None:  # a worker: its terminal is that of the search
            import_keras()
        import keras  # which draws from NumPy's numbers

        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        yield keras
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
