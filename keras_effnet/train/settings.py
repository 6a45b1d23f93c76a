"""What a training run is told, and keeps in `run.json` so that it can be resumed; nothing here imports Keras."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, check_values, unknown_name
from keras_effnet.network.resizing import check_fix_size
from keras_effnet.network.table import stage_of
from keras_effnet.network.variants import architecture_of, get_variant
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.framing import CROP_MARGIN
from keras_effnet.pictures.listing import find_data
from keras_effnet.system.devices import STRATEGIES

AUGMENTATIONS = ("none", "light", "standard", "randaugment")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
XLA = ("auto", "on", "off")
SOFTMAX, SIGMOID, SIGMOIDS = ANSWERS = ("softmax", "sigmoid", "sigmoids")
WANTED_PRECISION = 0.95
DECIDED_LAST = (
    "temperature_scaling",
    "wanted_precision",
    "strangers",
)  # a run without a model may change these
PSEUDO_LABELS = ("soft", "hard")
_SMALLEST = ("b0", "lite0")
OPTIMIZERS = ("adam", "rmsprop")
PAPER_RATE = 0.016 / 4  # for 256 photographs in a step: a quarter of ImageNet's


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run computes.

    Attributes:
        data: folder, CSV file or another source of photographs, see `pictures.listing`.
        variant: short name of the backbone.
        weights: published set, file, or None for random weights.
        preprocessing: a convention's name or (mean, std), as in `EfficientNet`, for weights that leave it open.
        classes: class names to use, in the order of the outputs; empty for all that are found.
        image_size: side of the input in pixels; None for the variant's resolution.
        crop_margin: pixels of the shorter side that the evaluation crop leaves out, see `load_image`;
            unlike ImageNet's, most people's photographs show the thing up to their edges, hence 0.
        validation_share, test_share: of each class, where the data has no such folder; 0–1.
        seed: of the split, the order, the augmentation and the head.
        batch_size: photographs per optimizer step.
        head_epochs: passes over the cached features at most.
        epochs: passes over the photographs while fine-tuning; 0 trains the head alone.
        unfreeze: first block to fine-tune, see `transfer.unfreeze`.
        optimizer: of fine-tuning, one of `OPTIMIZERS`; rmsprop is the reference's.
        learning_rate: the highest of fine-tuning.
        patience: epochs without a better validation loss before a phase ends.
        dropout: before the classifier, 0–1; None for the variant's own.
        label_smoothing: of fine-tuning, 0–1.
        augment: one of `AUGMENTATIONS`.
        mixup, cutmix: strength (alpha) of mixing photographs; 0 for none.
        class_weights: weigh photographs so that every class counts the same.
        refit: in the end, fine-tune once more from the same head, for as many epochs as validation
            favoured, on training and validation photographs together.
        ema: momentum of the averaged weights, 0–1; 0 for none.
        answers: one of `ANSWERS`, see there; None for sigmoids where a photograph has several labels, else a softmax.
        focal: how much the loss leaves to photographs that are got wrong (gamma); 0 for cross-entropy.
        balanced_sampling: draw photographs of every class equally often.
        fix_size: side of the input for which the network is made in the end, see `resolution`; None for `image_size`.
        fix_epochs: of that at most.
        temperature_scaling: divide the logits in the end by what makes the validation photographs most probable.
        wanted_precision: share of the accepted guesses that is to be right, 0–1, by which the threshold for "none of
            these" is chosen; None for no threshold, or with strangers for `WANTED_PRECISION`.
        strangers: folder of photographs of none of the classes, which the threshold is to refuse; None for none.
        teacher: what the teacher is called that `train` gets too, a file for example; None for none.
        temperature: that softens the teacher's probabilities and the student's, see `students`; above 0.
        hard_labels: share of the labels themselves in what a labelled photograph teaches, where a teacher was given.
        unlabelled: folder of photographs without labels, None for none.
        rounds: of students that learn from them, each the teacher of the next.
        confidence: the least probability with which the teacher names the class of a photograph that is used, 0–1.
        pseudo_labels: one of `PSEUDO_LABELS`: a teacher's probabilities, or its class alone and no noise.
        student: short name of the students' network; None for `variant`.
        student_augment: one of `AUGMENTATIONS`, of students with soft labels.
        unlabelled_ratio: photographs without labels for each with one, at most; None for 1, or 3 where the student is
            larger than B0 or Lite0.
        precision: one of `PRECISIONS`.
        xla: one of `XLA`.
        strategy: one of `STRATEGIES`.
    """

    data: str
    variant: str = "lite0"
    weights: str | None = "imagenet"
    preprocessing: str | tuple[Any, ...] | None = None
    classes: tuple[str, ...] = ()
    image_size: int | None = None
    crop_margin: int = 0
    validation_share: float = 0.15
    test_share: float = 0.15
    seed: int = 0
    batch_size: int = 32
    head_epochs: int = 200
    epochs: int = 16
    unfreeze: str = "block3a"
    optimizer: str = "adam"
    learning_rate: float = 5e-4
    patience: int = 10
    dropout: float | None = None
    label_smoothing: float = 0.1
    augment: str = "standard"
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: bool = False
    refit: bool = False
    ema: float = 0.0
    answers: str | None = None
    focal: float = 0.0
    balanced_sampling: bool = False
    fix_size: int | None = None
    fix_epochs: int = 10
    temperature_scaling: bool = True
    wanted_precision: float | None = None
    strangers: str | None = None
    teacher: str | None = None
    temperature: float = 1.0
    hard_labels: float = 0.1
    unlabelled: str | None = None
    rounds: int = 1
    confidence: float = 0.3
    pseudo_labels: str = "soft"
    student: str | None = None
    student_augment: str = "randaugment"
    unlabelled_ratio: float | None = None
    precision: str = "auto"
    xla: str = "auto"
    strategy: str = "none"

    def __post_init__(self) -> None:
        for name, known in (
            ("augment", AUGMENTATIONS),
            ("student_augment", AUGMENTATIONS),
            ("pseudo_labels", PSEUDO_LABELS),
            ("precision", PRECISIONS),
            ("xla", XLA),
            ("optimizer", OPTIMIZERS),
            ("strategy", STRATEGIES),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        check_values(self, ("wanted_precision",), lambda value: 0 < value <= 1, "above 0, at most 1")
        if self.answers is not None and self.answers not in ANSWERS:
            raise unknown_name("answers", self.answers, ANSWERS)
        check_values(self, ("focal",), lambda value: value >= 0, "of at least 0")
        if (self.teacher or self.unlabelled) and (self.focal or self.answers not in (None, SOFTMAX)):
            raise InvalidInputError(
                "Expected a softmax and cross-entropy to learn from a teacher or from photographs without labels. "
                f"Received: answers {self.answers}, focal {self.focal:g}. Leave --answers and --focal out."
            )
        shares = ("validation_share", "test_share", "label_smoothing", "ema", "dropout")
        check_values(self, shares, lambda value: 0 <= value < 1, "to lie in [0, 1)")
        check_values(
            self,
            ("batch_size", "head_epochs", "patience", "fix_epochs"),
            lambda value: value >= 1,
            "of at least 1",
        )
        check_values(self, ("epochs", "crop_margin", "seed"), lambda value: value >= 0, "of at least 0")
        if not self.learning_rate > 0:
            raise InvalidInputError(f"Expected a learning rate above 0. Received: {self.learning_rate}.")
        if self.mixup < 0 or self.cutmix < 0:
            raise InvalidInputError(
                f"Expected mixup and cutmix of at least 0. Received: {self.mixup}, {self.cutmix}."
            )
        if self.validation_share <= 0 or self.validation_share + self.test_share >= 1:
            raise InvalidInputError(
                "Expected a validation share above 0 and something left to train on. Received: "
                f"validation {self.validation_share}, test {self.test_share}."
            )
        self._check_students()
        if self.refit and (self.epochs == 0 or self.weights is None):
            raise InvalidInputError(
                "Expected something to refit. Received refit with epochs 0 or without pretrained weights, "
                "where no head is fine-tuned. Leave --refit out."
            )

    @property
    def balances(self) -> bool:
        """Whether every class counts the same, by weight or by number."""
        return self.class_weights or self.balanced_sampling

    @property
    def precision_of_accepted(self) -> float | None:
        """`wanted_precision`, or what strangers make of none; None for no threshold."""
        return self.wanted_precision or (WANTED_PRECISION if self.strangers else None)

    def _check_students(self) -> None:
        check_values(self, ("rounds",), lambda value: value >= 1, "of at least 1")
        check_values(self, ("temperature", "unlabelled_ratio"), lambda value: value > 0, "above 0")
        check_values(self, ("confidence", "hard_labels"), lambda value: 0 <= value <= 1, "to lie in [0, 1]")
        if self.epochs == 0 and (self.teacher or self.unlabelled):
            raise InvalidInputError(
                "Expected epochs of fine-tuning, in which a student learns from its teacher. Received: 0. Pass --epochs 16."
            )
        if self.unlabelled and self.refit:
            raise InvalidInputError(
                "Expected a refit or photographs without labels. Received both. Leave --refit out."
            )
        if self.student and (self.teacher or not self.unlabelled):
            raise InvalidInputError(
                "Expected another network for students that follow on a first one, which needs photographs without "
                f"labels and no teacher of its own. Received: student {self.student!r} "
                f"{'with' if self.teacher else 'without'} {'a teacher' if self.teacher else 'unlabelled ones'}. "
                "Name the network with --model."
            )

    @property
    def ratio_for_students(self) -> float:
        """`unlabelled_ratio`, or Noisy Student's where none was given."""
        return self.unlabelled_ratio or (1.0 if (self.student or self.variant) in _SMALLEST else 3.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `to_dict`; unknown keys are an error."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            raise InvalidInputError(
                f"Expected the settings of a training run. Received: {sorted(set(values) - known)} beside them. "
                "The run was made by another version; start a new one."
            )
        listed = ("classes", "preprocessing")
        return cls(**(values | {name: _as_tuples(values[name]) for name in listed if name in values}))


def paper_settings(batch_size: int = Settings.batch_size) -> dict[str, Any]:
    """The settings with which the paper transfers to other data sets, as far as it tells them (section 5.3).

    All blocks learn, with the reference's optimizer at a quarter of ImageNet's learning rate; photographs come in
    the network's full size, also CIFAR's, with ImageNet's crop; in the end those for validation are learned too.
    """
    return {
        "crop_margin": CROP_MARGIN,
        "unfreeze": "stem",
        "optimizer": "rmsprop",
        "learning_rate": PAPER_RATE * batch_size / 256,
        "refit": True,
    }


def _as_tuples(value: Any) -> Any:
    """JSON's lists, also those within lists, as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def check(settings: Settings) -> None:
    """Make sure before a run has a folder that the data are there, the weights fit and the block exists.

    Published weights are fetched here, if they are not on this machine yet. Keras is not imported.

    Raises:
        InvalidInputError: an unknown variant or block, or no such data.
        WeightsError: weights that are missing, damaged or of another variant.
    """
    from keras_effnet.weights.sources import check_variant, plan_weights

    variant = get_variant(settings.variant)
    blocks = [block.name for block in architecture_of(variant).blocks]
    known = ["stem", *dict.fromkeys(map(stage_of, blocks)), *blocks, "top"]
    if settings.unfreeze not in known:
        raise unknown_name("unfreeze", settings.unfreeze, known)
    find_data(settings.data)
    if settings.fix_size is not None:
        check_fix_size(settings.fix_size, settings.image_size or variant.resolution)
    if settings.strangers is not None:
        list_images(settings.strangers)
    if settings.unlabelled:
        list_images(Path(settings.unlabelled).expanduser())
    if settings.student:
        check(replace(settings, variant=settings.student, student=None))
    source = plan_weights(settings.weights, variant, settings.preprocessing, include_top=False).source
    if source is not None:
        check_variant(source, variant)
