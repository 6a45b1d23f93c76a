"""Our networks on Keras' JAX backend against timm's, on one GPU (or, to try the script, on the CPU).

    python benchmarks/gpu.py --json build/gpu.json               B0 and B4, training and inference
    python benchmarks/gpu.py --quick                             one step of a small B0: does it run?
    python benchmarks/gpu.py --variants b0 --profile build/prof  also where the time of a training step goes

Needs JAX, PyTorch and timm in one Python, and no TensorFlow: our processes refuse to import it. Both sides get
uint8 pictures channels last, compute in bfloat16 with float32 weights, and normalize on the device. Training is
`model.fit` from arrays in the host's memory against the usual loop over pinned batches with `torch.compile`: SGD
with momentum, dropout and stochastic depth as each package builds them. Inference is one compiled call on pictures
that are on the device already. Each side is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"b0": 224, "b4": 380}
TRAIN_BATCH = {"b0": 256, "b4": 64}
TRAIN_STEPS = 12
INFERENCE_BATCHES = (1, 32, 256)
INFERENCE_SECONDS = 0.4  # a turn's calls last about this long
SIDES = ("ours", "timm")
CLASSES = 1000

Turn = Callable[[], float]  # seconds of one run


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        _child(arguments)
        return
    found: dict[str, Any] = {"device": None, "rows": [], "facts": {}}
    for variant in arguments.variants:
        with _processes(variant, arguments) as (sides, facts):
            found["device"] = found["device"] or facts["ours"]["device"]
            found["rows"] += _play(variant, sides, facts["ours"]["pictures"], arguments.rounds)
            for name, side in sides.items():  # what is known only after the last turn
                facts[name] |= side.ask("facts")
            found["facts"][variant] = facts
    print(_table(found))
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="64 px, small batches, two rounds")
    parser.add_argument("--profile", metavar="DIR", help="also trace training and list its kernels there")
    parser.add_argument("--json", metavar="FILE", help="write every time too")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.rounds = 2 if arguments.quick else arguments.rounds
    return arguments


class _Side:
    """One package in a process of its own, which answers each question with one line of JSON."""

    def __init__(self, name: str, variant: str, arguments: argparse.Namespace) -> None:
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the other side needs memory too
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, __file__, "--child", name, "--variants", variant]
        command += ["--quick"] if arguments.quick else []
        command += ["--profile", arguments.profile] if arguments.profile else []
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )

    def ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self.name} ended: {self._errors.read()[-3000:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


@contextmanager
def _processes(
    variant: str, arguments: argparse.Namespace
) -> Iterator[tuple[dict[str, _Side], dict[str, dict[str, Any]]]]:
    """Both sides, started together (compiling takes most of the time), and what they say of themselves."""
    sides = {name: _Side(name, variant, arguments) for name in SIDES}
    try:
        yield sides, {name: side.answer() for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.close()


def _play(
    variant: str, sides: dict[str, _Side], pictures: dict[str, int], rounds: int
) -> list[dict[str, Any]]:
    """Let both sides take turns; a row for each subject, with pictures per second of every turn."""
    rows = []
    for subject, count in pictures.items():
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                rates[name].append(count / side.ask(subject)["seconds"])
        rows.append({"variant": variant, "subject": subject, **rates})
    return rows


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['device']}, pictures per second, medians of the turns; ratio above 1: ours is faster"]
    lines.append(f"{'':4} {'subject':14} {'ours':>9} {'timm':>9} {'ratio':>7}   lowest–highest of the turns")
    for row in found["rows"]:
        ours, theirs = (statistics.median(row[name]) for name in SIDES)
        ratios = [mine / other for mine, other in zip(row["ours"], row["timm"], strict=True)]
        lines.append(
            f"{row['variant']:4} {row['subject']:14} {ours:9.0f} {theirs:9.0f} {ours / theirs:7.3f}   "
            f"{min(ratios):.3f}–{max(ratios):.3f}"
        )
    for variant, facts in found["facts"].items():
        for name in SIDES:
            lines.append(
                f"{variant} {name}: {json.dumps({k: v for k, v in facts[name].items() if k != 'pictures'})}"
            )
    return "\n".join(lines)


def _child(arguments: argparse.Namespace) -> None:
    """Build, compile and warm up everything, then answer questions until the parent closes the pipe."""
    variant = arguments.variants[0]
    size = 64 if arguments.quick else SIZES[variant]
    batch = 4 if arguments.quick else TRAIN_BATCH[variant]
    batches = (1, 2) if arguments.quick else INFERENCE_BATCHES
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch * TRAIN_STEPS, size, size, 3), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, len(images))
    start = time.perf_counter()
    side = (_Ours if arguments.child == "ours" else _Timm)(variant, images, labels, batch)
    turns: dict[str, Turn] = {"train": side.train}
    pictures = {"train": len(images)}
    for count in batches:
        call = side.inference(generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
        repeats = max(1, int(INFERENCE_SECONDS / min(call() for _ in range(5))))
        turns[f"batch {count}"] = lambda call=call, repeats=repeats: sum(call() for _ in range(repeats))  # type: ignore[misc]
        pictures[f"batch {count}"] = count * repeats
    side.train()
    ready = {
        "device": side.device,
        "pictures": pictures,
        "ready_after_s": round(time.perf_counter() - start, 1),
    }
    if arguments.profile:
        folder = Path(arguments.profile) / f"{variant}_{arguments.child}"
        folder.mkdir(parents=True, exist_ok=True)
        ready["kernels"] = side.profile(folder)
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        question = line.strip()
        answer = side.facts() if question == "facts" else {"seconds": turns[question]()}
        print(json.dumps(answer), flush=True)


class _NoTensorFlow:
    """Refuses every import of TensorFlow, so that what runs here runs where there is none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"{name} is blocked in this benchmark", name=name)


class _Ours:
    """EfficientNet of this package on Keras' JAX backend, in mixed_bfloat16."""

    def __init__(self, variant: str, images: Any, labels: Any, batch: int) -> None:
        sys.meta_path.insert(0, _NoTensorFlow())
        import jax
        import keras

        import keras_effnet

        self.jax, self.images, self.labels, self.batch = jax, images, labels, batch
        device = jax.devices()[0]
        self.device = f"{device.device_kind}, jax {jax.__version__}, keras {keras.__version__}"
        self._check = _outputs_off_the_cpu(jax, keras, keras_effnet)
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        self.model = keras_effnet.EfficientNet(
            variant, weights=None, classifier_activation=None, input_shape=images.shape[1:]
        )
        self.model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.train()

    def train(self) -> float:
        start = time.perf_counter()
        self.model.fit(self.images, self.labels, self.batch, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - start

    def inference(self, images: Any) -> Turn:
        model, jax = self.model, self.jax
        pixels = jax.device_put(images)
        # copies, because training gives the model's own arrays away to its steps; kernels in bfloat16 once and
        # not in every call, as timm's model.bfloat16() has them
        half, fixed = (
            [jax.numpy.array(v.value, "bfloat16" if v.value.ndim > 1 else None, copy=True) for v in kind]
            for kind in (model.trainable_variables, model.non_trainable_variables)
        )

        def forward(trainable: Any, fixed: Any, pixels: Any) -> Any:
            return model.stateless_call(trainable, fixed, pixels, training=False)[0]

        compiled = jax.jit(forward)

        def call() -> float:
            start = time.perf_counter()
            compiled(half, fixed, pixels).block_until_ready()
            return time.perf_counter() - start

        call()
        return call

    def facts(self) -> dict[str, Any]:
        stats = self.jax.devices()[0].memory_stats() or {}
        return {"peak_gb": round(stats.get("peak_bytes_in_use", 0) / 1e9, 2), "gpu_against_cpu": self._check}

    def profile(self, folder: Path) -> list[list[Any]]:
        with self.jax.profiler.trace(str(folder)):
            self.train()
        return _kernels_of_trace(folder)


def _outputs_off_the_cpu(jax: Any, keras: Any, keras_effnet: Any) -> dict[str, Any]:
    """The largest difference of Lite0's ImageNet probabilities from the CPU's, on the package's photographs."""
    try:
        model = keras_effnet.EfficientNetLite0(weights="imagenet")
    except (ImportError, ValueError, OSError) as error:  # the weights' distribution is not installed
        return {"left out": str(error)[:200]}
    from keras_effnet.pictures.reading import sample_images

    pixels = sample_images(224)
    there = model.predict(pixels, verbose=0)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = [
            [jax.device_put(np.asarray(v.value)) for v in kind]
            for kind in (model.trainable_variables, model.non_trainable_variables)
        ]
        here = np.asarray(model.stateless_call(*variables, jax.device_put(pixels), training=False)[0])
    keras.backend.clear_session()
    same = (there.argmax(-1) == here.argmax(-1)).mean()
    return {"largest difference": float(np.abs(there - here).max()), "same best class": float(same)}


def _kernels_of_trace(folder: Path) -> list[list[Any]]:
    """Milliseconds per step of the GPU's kernels in a trace of JAX, longest first."""
    from jax.profiler import ProfileData

    trace = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    spent: dict[str, float] = {}
    for plane in ProfileData.from_file(str(trace)).planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" not in line.name:
                continue
            for event in line.events:
                spent[event.name] = spent.get(event.name, 0.0) + event.duration_ns / 1e6 / TRAIN_STEPS
    return _longest(spent)


def _longest(spent: dict[str, float]) -> list[list[Any]]:
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    kernels = [[name[:110], round(ms, 3)] for name, ms in ordered[:40]]
    return [["all kernels", round(sum(spent.values()), 3)], *kernels]


class _Timm:
    """timm's network of the same name: channels last, autocast to bfloat16, `torch.compile`."""

    def __init__(self, variant: str, images: Any, labels: Any, batch: int) -> None:
        import timm
        import torch

        self.torch = torch
        gpu = torch.cuda.is_available()
        self.where = "cuda" if gpu else "cpu"
        name = torch.cuda.get_device_name() if gpu else "cpu"
        self.device = f"{name}, torch {torch.__version__}, timm {timm.__version__}"
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.network = timm.create_model(f"efficientnet_{variant}", drop_rate=0.2, drop_path_rate=0.2)
        self.network.to(self.where, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)
        mean, std = (
            torch.tensor(values, device=self.where).view(1, 3, 1, 1) * 255
            for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        self._normalized = lambda pixels: (pixels.permute(0, 3, 1, 2).float() - mean) / std
        steps = range(0, len(images), batch)
        pinned = [torch.from_numpy(images[at : at + batch]) for at in steps]
        self.batches = [(part.pin_memory() if gpu else part) for part in pinned]
        self.labels = [torch.from_numpy(labels[at : at + batch]).to(self.where) for at in steps]
        self._loss = torch.compile(self._forward_loss)
        self.train()

    def _forward_loss(self, pixels: Any, labels: Any) -> Any:
        with self.torch.autocast(self.where, self.torch.bfloat16):
            logits = self.network(self._normalized(pixels))
        return self.torch.nn.functional.cross_entropy(logits.float(), labels)

    def _wait(self) -> None:
        if self.where == "cuda":
            self.torch.cuda.synchronize()

    def train(self) -> float:
        self.network.train()
        start = time.perf_counter()
        for pixels, labels in zip(self.batches, self.labels, strict=True):
            loss = self._loss(pixels.to(self.where, non_blocking=True), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self._wait()
        return time.perf_counter() - start

    def inference(self, images: Any) -> Turn:
        import copy

        torch = self.torch
        network = copy.deepcopy(self.network).eval().bfloat16()
        pixels = torch.from_numpy(images).to(self.where)
        # CUDA graphs are what makes small batches fast; the mode falls back by itself on a CPU
        mode = "reduce-overhead" if self.where == "cuda" else None
        forward = torch.compile(lambda x: network(self._normalized(x).bfloat16()), mode=mode, dynamic=False)

        def call() -> float:
            start = time.perf_counter()
            with torch.inference_mode():
                forward(pixels)
            self._wait()
            return time.perf_counter() - start

        for _ in range(4):  # compile, record, replay
            call()
        return call

    def facts(self) -> dict[str, Any]:
        peak = self.torch.cuda.max_memory_allocated() if self.where == "cuda" else 0
        return {"peak_gb": round(peak / 1e9, 2)}

    def profile(self, folder: Path) -> list[list[Any]]:
        torch = self.torch
        kinds = [torch.profiler.ProfilerActivity.CUDA] if self.where == "cuda" else None
        with torch.profiler.profile(activities=kinds) as trace:
            self.train()
        spent = {
            event.key: getattr(event, "self_device_time_total", 0) / 1e3 / TRAIN_STEPS
            for event in trace.key_averages()
        }
        (folder / "kernels.txt").write_text(trace.key_averages().table(row_limit=60), encoding="utf-8")
        return _longest(spent)


if __name__ == "__main__":
    main()
