"""What photographs without labels, and a teacher, add to a few labelled ones.

    python benchmarks/students.py clothing --data DATA_DIR --labels 5 10 50 --work DIR --json FILE
    python benchmarks/students.py fashion --data /usr/share/datasets/fashion-mnist --labels 10 100 --work DIR --json FILE

Every network is Lite0 (the teacher of `distilled`: Lite2) with ImageNet's weights and the recipe of `keras-effnet
train`. For each seed other photographs have labels: so many of each class to train on, five to validate with. The
rest has none; the test photographs are always the same.

    labelled   the labelled photographs alone
    pseudo     and the others, with the class that `labelled` gives them (one student, no noise)
    noisy      and the others, as Noisy Student has them (--rounds)
    teacher    Lite2 on the labelled photographs alone
    distilled  Lite0 that learns from `teacher`, on the labelled photographs
    both       and on the others too

`clothing`: DATA_DIR has train/, validation/ and test/; the first two are one pool here. `fashion`: Fashion-MNIST's own
four files, Debian's package `dataset-fashion-mnist`; 2,000 pictures of the 60,000 have no label, 2,000 are for the test.

What was computed is kept in --work and in the JSON file, so the same command goes on where it was stopped. In the
end it prints, for each number of labels, the accuracy on the test photographs and the difference to `labelled`, seed by
seed on the same photographs, with its standard error: that of the photographs (bootstrap) and that of the seeds. A run
keeps what validates best, which may be the network before its students; how the last student differs stands behind.
`of the unlabelled` is the same on the photographs without labels, whose classes only this script knows.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

VALIDATION = 5  # of each class
WITHOUT_LABELS = TEST = 2000  # pictures of Fashion-MNIST
EPOCHS = {
    "clothing": 5,
    "fashion": 3,
}  # of students, which have many more photographs in each than with labels alone
EPOCHS_WITH_LABELS = 24  # of networks that see no other photographs
EPOCHS_OF_MANY = {
    "clothing 50": 24,
    "fashion 100": 8,
}  # else students would see fewer photographs than the first network
SIZE, UNFREEZE = (
    96,
    "block5a",
)  # what two cores can do: RandAugment and the blocks take 16 ms of a core for a picture
ARMS = ("labelled", "pseudo", "noisy", "teacher", "distilled", "both")

Row = tuple[str, str, str]  # file, class, split; without a class: no label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=EPOCHS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=2, help="of `noisy`; what is in the JSON file stays")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    work = arguments.work.resolve() / arguments.name
    pool, test = (_clothing if arguments.name == "clothing" else _fashion)(arguments.data.resolve(), work)
    found = json.loads(arguments.json.read_text()) if arguments.json.is_file() else {}
    for seed in arguments.seeds:
        for labels in arguments.labels:
            data = _divided(pool, test, work / f"{labels}-{seed}", labels, seed)
            for arm in arguments.arms:
                key = f"{arguments.name} {labels} {seed} {arm}"
                if key not in found:
                    found[key] = _run(
                        data, arm, seed, arguments.name, arguments.rounds, dict(row[:2] for row in pool)
                    )
                    print(key, f"{found[key]['accuracy']:.3f}", f"{found[key]['seconds']:.0f} s", flush=True)
                    arguments.json.write_text(json.dumps(found) + "\n", encoding="utf-8")
    _print(found, arguments)


def _clothing(data: Path, work: Path) -> tuple[list[Row], list[Row]]:
    del work
    rows = [
        (str(path), path.parent.name, path.parent.parent.name)
        for path in sorted(data.glob("*/*/*"))
        if path.is_file()
    ]
    return [row for row in rows if row[2] != "test"], [row for row in rows if row[2] == "test"]


def _fashion(data: Path, work: Path) -> tuple[list[Row], list[Row]]:
    """A part of the data set as PNG files: 12,000 to draw from, and those for the test."""
    made = []
    for name, count in (("train", 12_000), ("t10k", TEST)):
        folder = work / "pictures" / name
        pixels = _idx(data / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
        labels = _idx(data / f"{name}-labels-idx1-ubyte.gz", 8)[:count]
        rows = [(str(folder / f"{i:05d}.png"), f"class{label}", name) for i, label in enumerate(labels)]
        if not (folder.with_name(f"{name}.done")).exists():
            from PIL import Image

            folder.mkdir(parents=True, exist_ok=True)
            for (file, _, _), picture in zip(rows, pixels, strict=True):
                Image.fromarray(picture).save(file)
            folder.with_name(f"{name}.done").touch()
        made.append(rows)
    return made[0], made[1]


def _idx(path: Path, header: int) -> Any:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def _divided(pool: list[Row], test: list[Row], place: Path, labels: int, seed: int) -> Path:
    """`data.csv` with the labelled photographs and `unlabelled/` with links to the others."""
    if (place / "data.csv").is_file():
        return place
    shutil.rmtree(place, ignore_errors=True)
    (place / "unlabelled").mkdir(parents=True)
    generator = np.random.default_rng(seed)
    lines, rest = ["file,label,split"], []
    for name in sorted({row[1] for row in pool}):
        # those of `train` first: with 50 labels they are just enough
        own = sorted((row for row in pool if row[1] == name), key=lambda row: row[2] != "train")
        head = sum(row[2] == "train" for row in own)
        order = [*generator.permutation(head), *(head + generator.permutation(len(own) - head))]
        chosen = [own[index] for index in order]
        lines += [f"{row[0]},{name},train" for row in chosen[:labels]]
        lines += [f"{row[0]},{name},validation" for row in chosen[labels : labels + VALIDATION]]
        rest += [row[0] for row in chosen[labels + VALIDATION :]]
    for number, index in enumerate(generator.permutation(len(rest))[:WITHOUT_LABELS]):
        (place / "unlabelled" / f"{number:04d}{Path(rest[index]).suffix}").symlink_to(rest[index])
    lines += [f"{row[0]},{row[1]},test" for row in test]
    (place / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def _run(data: Path, arm: str, seed: int, name: str, rounds: int, known: dict[str, str]) -> dict[str, Any]:
    """Train one network and judge it, or go on with it."""
    import keras

    from keras_effnet.train import RunFolder, Settings, train

    settings = Settings(data=str(data / "data.csv"), seed=seed, **_own(data, arm, name, rounds))
    place = data / arm
    began = time.process_time()
    if not (place / "run.json").is_file():
        folder = RunFolder.create(place, settings)
        if arm in ("pseudo", "noisy"):  # their first network is that of `labelled`
            shutil.copytree(data / "labelled" / "work", place / "work")
    folder = RunFolder.resume(place)
    outcome = train(folder, teacher=_teacher(data) if settings.teacher else None)
    truth = outcome.listing.labels[outcome.listing.of("test")]
    guesses = outcome.probabilities.argmax(axis=1)
    made = {
        "accuracy": float((guesses == truth).mean()),
        "right": [int(right) for right in guesses == truth],
        "right_unlabelled": _right_unlabelled(outcome, data / "unlabelled", known),
        "validation_accuracy": outcome.metrics["validation"]["accuracy"],
        "students": outcome.metrics["students"],
        "seconds": time.process_time() - began,
    }
    if arm not in ("labelled", "teacher"):
        folder.clean()
    del outcome
    keras.backend.clear_session()
    gc.collect()
    return made


def _right_unlabelled(outcome: Any, folder: Path, known: dict[str, str]) -> list[int]:
    """Which photographs without labels the network names rightly; `known` has the class of each file."""
    files = sorted(folder.iterdir())
    truth = [outcome.listing.classes.index(known[str(file.readlink())]) for file in files]
    side = outcome.metrics["model"]["image_size"]
    guesses = [
        outcome.model.predict(outcome.framing.read_all(files[start : start + 500], side), verbose=0).argmax(1)
        for start in range(0, len(files), 500)
    ]
    return [int(right) for right in np.concatenate(guesses) == truth]


def _own(data: Path, arm: str, name: str, rounds: int) -> dict[str, Any]:
    """The settings of an arm."""
    epochs = EPOCHS_OF_MANY.get(f"{name} {data.name.partition('-')[0]}", EPOCHS[name])
    without = {"unlabelled": str(data / "unlabelled"), "epochs": epochs, "unlabelled_ratio": 3.0}
    common = {"image_size": SIZE, "unfreeze": UNFREEZE, "epochs": EPOCHS_WITH_LABELS}
    return (
        common
        | {
            "labelled": {},
            "teacher": {"variant": "lite2"},
            "pseudo": {**without, "pseudo_labels": "hard"},
            "noisy": {**without, "rounds": rounds},
            "distilled": {"teacher": "lite2"},
            "both": {**without, "teacher": "lite2"},
        }[arm]
    )


def _teacher(data: Path) -> Any:
    from keras_effnet import export
    from keras_effnet.train.lessons import Teacher

    runner = export.load(data / "teacher" / "model.keras")
    return Teacher(
        name="lite2", classes=runner.labels, size=runner.size[0], framing=runner.framing, ask=runner
    )


def _print(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    for labels in arguments.labels:
        print(f"\n{arguments.name}, {labels} labels of each class")
        for arm in arguments.arms:
            rows = list(_pairs(found, arguments, labels, arm, "right"))
            if rows:
                print(f"  {arm:10} {_told(rows)}{_last_students(found, arguments, labels, arm)}")
            if rows := list(_pairs(found, arguments, labels, arm, "right_unlabelled")):
                print(f"    of the unlabelled {_told(rows)}")


def _pairs(
    found: dict[str, Any], arguments: argparse.Namespace, labels: int, arm: str, what: str
) -> Iterator[Any]:
    """For each seed which photographs `labelled` and the arm got right, `[2, N]`."""
    for seed in arguments.seeds:
        keys = [f"{arguments.name} {labels} {seed} {name}" for name in ("labelled", arm)]
        if all(what in found.get(key, {}) for key in keys):
            yield np.array([found[key][what] for key in keys], float)


def _last_students(found: dict[str, Any], arguments: argparse.Namespace, labels: int, arm: str) -> str:
    """By how much the last student of each seed is better than `labelled`, kept or not."""
    told = []
    for seed in arguments.seeds:
        base, own = (found.get(f"{arguments.name} {labels} {seed} {name}") for name in ("labelled", arm))
        if base and own and own["students"]:
            told.append(own["students"]["rounds"][-1]["test_accuracy"] - base["accuracy"])
    return f"   last student {np.mean(told):+.3f} ({', '.join(f'{v:+.3f}' for v in told)})" if told else ""


def _told(rows: list[Any]) -> str:
    table = np.stack(rows)  # [seeds, 2, N]
    differences = table[:, 1] - table[:, 0]
    by_seed = differences.mean(axis=1)
    drawn = np.random.default_rng(0).integers(0, differences.shape[1], (2000, differences.shape[1]))
    of_photographs = differences.mean(axis=0)[drawn].mean(axis=1).std()
    of_seeds = by_seed.std(ddof=1) / len(by_seed) ** 0.5 if len(by_seed) > 1 else float("nan")
    return (
        f"{table[:, 1].mean():.3f}   {by_seed.mean():+.3f} ± {of_photographs:.3f} (photographs) "
        f"± {of_seeds:.3f} ({len(by_seed)} seeds: {', '.join(f'{value:+.3f}' for value in by_seed)})"
    )


if __name__ == "__main__":
    main()
