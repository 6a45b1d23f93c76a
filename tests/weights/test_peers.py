"""Logits against the PyTorch projects' own code, with random weights and BN statistics.

Skipped without PyTorch. To run them, install `torch` (CPU), `timm`, `efficientnet-pytorch`,
`efficientnet-lite-pytorch` and `geffnet` beside this package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet.network.conventions import preprocess_input
from keras_effnet.network.variants import VARIANTS
from tests.material import outputs

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

SIZE = 64
TOLERANCE = 1e-4
B = [f"b{index}" for index in range(8)]
LITE = [f"lite{index}" for index in range(5)]


def _define_torchvision_operators() -> None:
    """PyPI's torchvision expects operators of a CUDA build; the models do not need them."""
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        try:
            torch.library.define(f"torchvision::{name}", signature)
        except RuntimeError:  # a complete torchvision has them
            return


def timm_model(variant: str) -> Any:
    _define_torchvision_operators()
    timm = pytest.importorskip("timm")
    return timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)


def timms_own_model(variant: str) -> Any:
    """Of timm's own trainings: as PyTorch pads."""
    _define_torchvision_operators()
    timm = pytest.importorskip("timm")
    return timm.create_model(f"efficientnet_{variant}", pretrained=False)


def geffnet_model(variant: str) -> Any:
    _define_torchvision_operators()
    geffnet = pytest.importorskip("geffnet")
    return geffnet.create_model(f"tf_efficientnet_{variant}", pretrained=False)


def torchvision_model(variant: str) -> Any:
    _define_torchvision_operators()
    pytest.importorskip("torchvision")
    from torchvision.models import efficientnet

    return getattr(efficientnet, f"efficientnet_{variant}")(weights=None)


def lukemelas_model(variant: str) -> Any:
    package = pytest.importorskip("efficientnet_pytorch")
    return package.EfficientNet.from_name(f"efficientnet-{variant}", image_size=SIZE)


def lukemelas_lite_model(variant: str) -> Any:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    return package.EfficientNet.from_name(f"efficientnet-{variant}", image_size=SIZE)


def randomize(model: Any) -> None:
    """Random statistics and biases; the kernels are random from the start."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: Any, low: float, high: float) -> Any:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.8, 1.2))
                module.bias.copy_(uniform(module.bias, -0.2, 0.2))
                module.running_mean.copy_(uniform(module.running_mean, -0.2, 0.2))
                module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
            elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                fan_in = module.weight[0].numel()
                bound = (3.0 / fan_in) ** 0.5
                module.weight.copy_(uniform(module.weight, -bound, bound))
                if module.bias is not None:
                    module.bias.copy_(uniform(module.bias, -0.5, 0.5))


PYTORCH = {"padding": "symmetric", "epsilon": 1e-5}
CASES: list[tuple[Callable[[str], Any], str, dict[str, Any]]] = [
    *((timm_model, variant, {}) for variant in (*B, "b8", "l2", *LITE)),
    *((geffnet_model, variant, {}) for variant in ("b0", "b7", *LITE)),
    *((lukemelas_model, variant, {}) for variant in B),
    *((lukemelas_lite_model, variant, {}) for variant in LITE),
    *((timms_own_model, variant, PYTORCH) for variant in ("b0", "b5", "lite0")),
    *((torchvision_model, variant, PYTORCH) for variant in B[:5]),
    *((torchvision_model, variant, {"padding": "symmetric", "epsilon": 1e-3}) for variant in B[5:]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "variant", "flags"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_logits_agree_with_the_peers_own_code(
    tmp_path: Path, peer: Callable[[str], Any], variant: str, flags: dict[str, Any], pictures: np.ndarray
) -> None:
    theirs = peer(variant).eval()
    randomize(theirs)
    path = tmp_path / f"{variant}.pth"
    torch.save(theirs.state_dict(), path)
    prepared = preprocess_input(pictures, convention=VARIANTS[variant].preprocessing)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(prepared).permute(0, 3, 1, 2)).numpy()
    ours = keras_effnet.EfficientNet(
        variant, weights=path, input_shape=(SIZE, SIZE, 3), classifier_activation=None, **flags
    )
    found = outputs(ours, pictures)
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(found - expected).max()) / scale
    print(f"{peer.__name__} {variant}: max error {error:.1e} at a scale of {scale:.2g}")
    assert expected.std() > 1e-2
    assert error < TOLERANCE


def test_safetensors_written_by_its_library_from_a_torch_model_reads_the_same(
    tmp_path: Path, pictures: np.ndarray
) -> None:
    safetensors_torch = pytest.importorskip("safetensors.torch")
    theirs = timm_model("lite0").eval()
    randomize(theirs)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 1}, tmp_path / "a.pth")
    safetensors_torch.save_file(theirs.state_dict(), str(tmp_path / "a.safetensors"))
    found = []
    for name in ("a.pth", "a.safetensors"):
        model = keras_effnet.EfficientNetLite0(weights=tmp_path / name, input_shape=(SIZE, SIZE, 3))
        found.append(outputs(model, pictures))
    assert np.array_equal(*found)


@pytest.mark.parametrize("legacy", [False, True])
def test_bfloat16_and_legacy_files_of_torch_itself(tmp_path: Path, legacy: bool) -> None:
    theirs = timm_model("lite0").to(torch.bfloat16)
    path = tmp_path / "lite0.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    if legacy:
        with pytest.raises(keras_effnet.errors.WeightsError, match=r"before 1\.6"):
            keras_effnet.EfficientNetLite0(weights=path)
        return
    model = keras_effnet.EfficientNetLite0(weights=path, input_shape=(SIZE, SIZE, 3))
    kernel = model.get_layer("stem_conv").get_weights()[0]
    assert np.array_equal(kernel, theirs.conv_stem.weight.detach().float().numpy().transpose(2, 3, 1, 0))
