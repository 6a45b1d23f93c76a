"""A model repository of NVIDIA's Triton Inference Server, which speaks KServe's Open Inference Protocol (v2)."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

NAME = "triton"
HELP = "a model repository for NVIDIA's Triton Inference Server"
EXAMPLES = "  keras-effnet bundle triton out/lite0_float32.onnx --out model_repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""


def check(arguments: argparse.Namespace) -> None:
    """Tell what is wrong with the files."""


def write(arguments: argparse.Namespace, folder: Path) -> None:
    """A folder per model with its version 1 and what Triton must know of it."""
    for file in arguments.files:
        version = folder / file.stem / "1"
        version.mkdir(parents=True)
        shutil.copyfile(file, version / "model.onnx")
        (folder / file.stem / "config.pbtxt").write_text('backend: "onnxruntime"\n', encoding="utf-8")


def next_step(out: Path) -> str:
    """How to start it."""
    return f"tritonserver --model-repository={out}"
