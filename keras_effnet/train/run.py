"""A training run from a folder of photographs to a saved, measured classifier.

Each step leaves its result in the run's folder and is skipped when the result is there, so a run that
was stopped at any point is resumed by doing it again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import ExportError, InvalidInputError, WeightsError
from keras_effnet.network.variants import get_variant
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.pictures.prefetching import error_of_ours
from keras_effnet.system.devices import strategy_scope
from keras_effnet.system.files import staged
from keras_effnet.system.progress import Progress
from keras_effnet.train import students
from keras_effnet.train.answers import (
    Labelled,
    answers_for,
    as_probabilities,
    classifier,
    judged_by,
    measured,
    targets_of,
)
from keras_effnet.train.batches import Course, evaluation_batches
from keras_effnet.train.certainty import decided_for, figures, strangers_of
from keras_effnet.train.checkpoints import EpochCheckpoint, save_classifier
from keras_effnet.train.fine_tuning import fine_tune, precision, prepare, takes_parts
from keras_effnet.train.fixing import fixed_network
from keras_effnet.train.folder import RunFolder
from keras_effnet.train.head import FloatArray, Lesson, cached_features, judge_head, train_head
from keras_effnet.train.lessons import Lessons, Teacher
from keras_effnet.train.parts import parts_of
from keras_effnet.train.results import Outcome
from keras_effnet.train.settings import Settings
from keras_effnet.train.splits import class_weights, data_figures, photo_weights, photographs_of
from keras_effnet.train.unlabelled import unlabelled_photographs

MIRRORED_LIMIT = 20_000  # photographs; with more the mirror images add time and no accuracy
EVALUATION_BATCH = 32
VALIDATED = "work/validated.json"
# of TensorBoard's writer: "…}} FILE; File too large\n\tFailed to flush 2 events to FILE"
_EVENTS = re.compile(r"}} (?P<file>[^\n]+); (?P<said>[^\n]+)\n.*(events file|Failed to flush)", re.DOTALL)


def train(folder: RunFolder, progress: Progress | None = None, *, teacher: Teacher | None = None) -> Outcome:
    """Do what is left of a run.

    Args:
        folder: from `RunFolder.create` or `RunFolder.resume`.
        progress: what to show; None for nothing.
        teacher: to learn from, where the settings name one.

    Raises:
        InvalidInputError: data that cannot be used; the run gives its folder back if nothing was computed.
        WeightsError: weights that cannot be used; likewise.
        ExportError: a file could not be written; the run can be resumed.
    """
    try:
        with plain_errors():
            return _Run(folder, progress or Progress(quiet=True), teacher).do()
    except (InvalidInputError, WeightsError):
        if not folder.begun:
            folder.abandon()
        raise


class _Run:
    def __init__(self, folder: RunFolder, progress: Progress, teacher: Teacher | None) -> None:
        self.folder, self.progress, self.teacher = folder, progress, teacher
        self.use(folder.settings)

    def use(self, settings: Settings) -> None:
        """Train networks with these settings from now on."""
        self.settings = settings
        self.variant = get_variant(self.settings.variant)
        self.size = self.settings.image_size or self.variant.resolution
        self.framing = Framing(self.variant.interpolation, self.settings.crop_margin)
        # what is kept of the head: a student of another network has a head of its own
        self.place = "" if settings.variant == self.folder.settings.variant else f"{settings.variant}_"

    def do(self) -> Outcome:
        keras.utils.set_random_seed(self.settings.seed)
        listing, skipped = photographs_of(self.folder, self.progress)
        self.answers = answers_for(self.settings, listing)
        metrics = self.folder.read_json("metrics.json")
        strangers = None if metrics else strangers_of(self.settings, listing, self.progress)
        if self.folder.model.is_file():
            model = keras.saving.load_model(self.folder.model, compile=False)
            self.use(students.settings_of_result(self.folder))
            self.size = int(model.input_shape[1])
        else:
            model = self._trained(listing, strangers)
            save_classifier(model, self.folder.model, listing.classes)
        judged = "test" if len(listing.of("test")) else "validation"
        probabilities = self._probabilities(model, listing, judged)
        if metrics is None:
            metrics = self._metrics(model, listing, skipped, judged, probabilities)
            strange = None if strangers is None else self._probabilities(model, strangers, judged)
            decided = decided_for(self, model, listing, strangers)
            metrics["certainty"] = figures(decided, listing, listing.of(judged), probabilities, strange)
            self.folder.write_json("metrics.json", metrics)
        told: dict[str, Any] = {"probabilities": probabilities, "judged": judged, "framing": self.framing}
        return Outcome(folder=self.folder, model=model, listing=listing, metrics=metrics, **told)

    def _trained(self, listing: Listing, strangers: Listing | None) -> Any:
        """The network that is the run's result."""
        teacher = students.fitting(self.teacher, self.settings, listing.classes)
        if teacher is not None:
            students.judge_teacher(self, teacher, listing)
        if self.settings.unlabelled:
            unlabelled = unlabelled_photographs(self.folder, listing, self.progress)
            model = students.noisy_students(self, listing, unlabelled, teacher)
            return self._finished(model, listing, strangers)
        model = self._with_head(listing)
        head = model.get_weights() if self.settings.refit else []
        best = self._fine_tune(model, self.course(listing, teacher), "fine_tuning")
        if self.settings.refit and not best:
            self.progress.say("no refit: fine-tuning got fewer validation photographs right than the head")
        if not (self.settings.refit and best):
            return self._finished(model, listing, strangers)
        known = fixed_network(self, model, listing, "fixing")
        decided = decided_for(self, known, listing, strangers)
        self._keep_validation_figures(decided.given_to(known), listing)
        everything = listing.without_validation()
        model.set_weights(head)
        self.size = int(model.input_shape[1])
        self._fine_tune(model, self.course(everything, teacher), "refit", best)
        return decided.given_to(fixed_network(self, model, everything, "refit_fixing"))

    def _finished(self, model: Any, listing: Listing, strangers: Listing | None) -> Any:
        """A trained network after phase 3, with what validation decides of its certainty."""
        fixed = fixed_network(self, model, listing, "fixing")
        return decided_for(self, fixed, listing, strangers).given_to(fixed)

    def course(self, listing: Listing, teacher: Teacher | None = None) -> Course:
        """What labelled photographs teach, with or without a teacher."""
        weights = self.class_weights(listing)
        if teacher is None:
            return Labelled(listing, self.settings, self.answers, weights)
        return Lessons(listing, self.settings, teacher=teacher, class_weights=weights)

    def network(self, course: Course, phase: str) -> Any:
        """A new network that has learned what a course has, or what is kept of an earlier try."""
        model = self._with_head(course.listing)
        self._fine_tune(model, course, phase)
        return model

    def accuracies(self, model: Any, listing: Listing) -> dict[str, float]:
        """`validation_accuracy` and, where there are such photographs, `test_accuracy`."""
        return {
            f"{split}_accuracy": self._accuracy(model, listing, split)
            for split in ("validation", "test")
            if len(listing.of(split))
        }

    def _with_head(self, listing: Listing) -> Any:
        """A new network after phase 1, or an untrained one."""
        model = self._classifier(listing)
        if self.settings.weights is not None:
            self._head(model, listing)
        return model

    def _classifier(self, listing: Listing) -> Any:
        return classifier(
            self.answers,
            listing,
            self.variant,
            weights=self.settings.weights,
            preprocessing=self.settings.preprocessing,
            input_shape=(self.size, self.size, 3),
            dropout_rate=self.settings.dropout,
            crop_margin=self.settings.crop_margin,
        )

    def batches(self, listing: Listing) -> Callable[[npt.NDArray[np.int64]], Any]:
        """From indices to batches of these photographs, as the network sees them in the end."""
        return lambda indices: evaluation_batches(
            listing, indices, self.size, self.framing, batch_size=EVALUATION_BATCH
        )

    def class_weights(self, listing: Listing) -> FloatArray | None:
        """Of the training photographs, where the settings say so."""
        return class_weights(listing) if self.settings.class_weights else None

    def _head(self, model: Any, listing: Listing) -> None:
        """Phase 1, or its result from an earlier try."""
        last = model.get_layer("predictions")
        place = self.folder.work / f"{self.place}head.npz"
        if place.is_file():
            with np.load(place) as stored:
                last.set_weights([stored["kernel"], stored["bias"]])
            return
        began, cpu = time.monotonic(), time.process_time()
        features = self._features(model, listing)
        seconds = time.monotonic() - began
        training = [features[name] for name in ("train", "train_mirrored") if name in features]
        labels = {
            split: targets_of(self.answers, listing, listing.of(split))
            for split in ("train", "validation", "test")
        }
        lesson = Lesson(
            views=training,
            labels=labels["train"],
            validation=(features["validation"], labels["validation"]),
            weights=photo_weights(listing) if self.settings.balances else None,
        )
        history = train_head(
            model,
            lesson,
            epochs=self.settings.head_epochs,
            seed=self.settings.seed,
            callbacks=self._tensorboard("head"),
        )
        kernel, bias = last.get_weights()
        report: dict[str, Any] = {
            "feature_seconds": seconds,
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu,
            "history": history,
        }
        for split in ("validation", "test"):
            if len(labels[split]):
                report[f"{split}_accuracy"] = judge_head((features[split], labels[split]), kernel, bias)[1]
        self.folder.write_json(f"work/{self.place}head.json", report)
        with staged(place, overwrite=True) as temporary, temporary.open("wb") as stream:
            np.savez(stream, kernel=kernel, bias=bias)
        self.progress.say(
            f"head: validation accuracy {report['validation_accuracy']:.3f} after {report['seconds']:.0f} s"
        )

    def _features(self, model: Any, listing: Listing) -> dict[str, FloatArray]:
        backbone = keras.Model(model.input, model.get_layer("avg_pool").output)
        backbone = parts_of(backbone).learning if takes_parts(self.settings) else backbone
        wanted = {split: (split, False) for split in ("train", "validation", "test")}
        flips = self.settings.augment != "none"
        if flips and len(listing.of("train")) <= MIRRORED_LIMIT:
            wanted["train_mirrored"] = ("train", True)
        found: dict[str, FloatArray] = {}
        total = sum(len(listing.of(split)) for split, _ in wanted.values())
        with self.progress.bar("features", total) as advance:
            for name, (split, mirrored) in wanted.items():
                found[name] = cached_features(
                    lambda pixels: backbone.predict(pixels, verbose=0),
                    int(backbone.output_shape[-1]),
                    listing.of(split),
                    self.batches(listing),
                    self.folder.work / f"{self.place}features" / f"{name}.f32",
                    mirrored=mirrored,
                    progress=advance,
                )
        return found

    def _fine_tune(self, model: Any, course: Course, phase: str, epochs: int | None = None) -> int:
        """Phase 2 on a model of the run's precision and strategy; the epoch that `model` has now, 0 for none of it.

        Args:
            epochs: at most; None for those of the settings.
        """
        epochs = self.settings.epochs if epochs is None else epochs
        if epochs == 0:
            return 0
        with precision(self.settings) as policy, strategy_scope(self.settings.strategy):
            plain = policy == "float32" and self.settings.strategy == "none"
            tuned = model if plain else self._classifier(course.listing)
            if not plain:
                tuned.set_weights(model.get_weights())
            checkpoint = EpochCheckpoint(
                self.folder.work / phase,
                to_beat=self._to_beat(course),
                patience=self.settings.patience,
            )
            fine_tune(
                prepare(tuned, course, self.settings),
                course,
                checkpoint,
                self.settings,
                size=self.size,
                framing=self.framing,
                epochs=epochs,
                callbacks=self.callbacks(phase),
                verbose=self.progress.fit_verbosity,
            )
        if not plain:
            model.set_weights(tuned.get_weights())
        history = checkpoint.history
        best = checkpoint.best_epoch if checkpoint.improved else 0
        self.folder.write_json(
            f"work/{phase}.json",
            {
                "photographs": len(course),
                "epochs": checkpoint.epoch,
                "best_epoch": best,
                "accuracy_before": checkpoint.to_beat or None,
                "precision": policy,
                "seconds": sum(history.get("seconds", [])),
                "cpu_seconds": sum(history.get("cpu_seconds", [])),
                "history": history,
            },
        )
        return best

    def _keep_validation_figures(self, model: Any, listing: Listing) -> None:
        """How the network does that validation chose: the refitted one knows these photographs."""
        if self.folder.read_json(VALIDATED) is None:
            scores = self._probabilities(model, listing, "validation")
            self.folder.write_json(VALIDATED, measured(model, listing, "validation", scores))

    def _to_beat(self, course: Course) -> float:
        """The validation accuracy before fine-tuning: the head's."""
        if self.settings.weights is None or not (course.knows_head and len(course.listing.of("validation"))):
            return 0.0
        return float(self.folder.read_json(f"work/{self.place}head.json")["validation_accuracy"])

    def _accuracy(self, model: Any, listing: Listing, split: str) -> float:
        said = self._probabilities(model, listing, split)
        return judged_by(said, listing, listing.of(split)).top(1)

    def _tensorboard(self, phase: str) -> list[Any]:
        return [keras.callbacks.TensorBoard(self.folder.path / "logs" / phase, write_graph=False)]

    def callbacks(self, phase: str) -> list[Any]:
        """Of `fit`: what is shown and logged."""
        return [*self._tensorboard(phase), self.progress.epochs(phase.replace("_", "-"))]

    def _probabilities(self, model: Any, listing: Listing, split: str) -> npt.NDArray[np.float32]:
        indices = listing.of(split)
        with self.progress.bar(f"judging: {split}", len(indices)) as advance:
            made = model.predict(self.batches(listing)(indices), verbose=0)
            advance(len(indices))
        return as_probabilities(made, listing)

    def _metrics(
        self,
        model: Any,
        listing: Listing,
        skipped: list[tuple[str, str]],
        judged: str,
        probabilities: npt.NDArray[np.float32],
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": {
                "variant": self.variant.name,
                "weights": self.settings.weights,
                "image_size": self.size,
                "classes": list(listing.classes),
            },
            "data": data_figures(listing, skipped),
            "head": self.folder.read_json(f"work/{self.place}head.json"),
            "fine_tuning": self.folder.read_json("work/fine_tuning.json"),
            "refit": self.folder.read_json("work/refit.json"),
            "fixing": self.folder.read_json("work/fixing.json"),
            "teacher": self.folder.read_json(students.JUDGED),
            "students": students.figures_of(self.folder),
        }
        if (validated := self.folder.read_json(VALIDATED)) is not None:
            found["validation"] = validated
        for split in ("validation", "test"):
            if split not in found and len(listing.of(split)):
                scores = probabilities if split == judged else self._probabilities(model, listing, split)
                found[split] = measured(model, listing, split, scores)
        return found


@contextmanager
def plain_errors() -> Iterator[None]:
    """Within the block a photograph or a log that cannot be read or written is an error of this package.

    Raises:
        InvalidInputError: a photograph of the run is gone or damaged by now.
        ExportError: TensorBoard's log could not be written.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        text = str(error.message)
        if ours := error_of_ours(error):
            raise InvalidInputError(
                f"{ours} It could be read when the run began; put it back and resume."
            ) from error
        if events := _EVENTS.search(text):
            raise ExportError(
                f"Expected to write {events['file']!r}. The system said: {events['said']}. "
                "Free some space and resume."
            ) from error
        raise
