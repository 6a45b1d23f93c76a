"""A large variant that computes nearly what a small trained one does: trained weights for B4 or B7 without training.

Every channel of the large network is a copy of one of the small network's, and whatever reads the copies
is divided by their number ("Net2Net", Chen et al. 2016, arXiv:1511.05641). A block that the small network
does not have is a copy of the last one of its stage whose branch is scaled down to `ADDED`, with
statistics measured on photographs. A little noise keeps the copies from being equal. So channels spread
as widely as in a trained network, which random weights do not show.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NOISE = 0.002  # of each kernel value, relative: the small network is this sensitive
ADDED = 0.1  # of the branch of a block that the small network does not have


class _Grower:
    def __init__(self, small: Any, large: Any, seed: int) -> None:
        self.small, self.large = small, large
        self.rng = np.random.default_rng(seed)

    def widen(self, old: int, new: int) -> Any:
        """Which old channel each new one copies."""
        return np.concatenate([np.arange(old), self.rng.integers(old, size=max(new - old, 0))])[:new]

    def noisy(self, kernel: Any) -> Any:
        return kernel * (1 + NOISE * self.rng.standard_normal(kernel.shape))

    def convolution(self, name: str, source: str, inputs: Any, outputs: Any) -> None:
        """A kernel `[…, in, out]`, with its bias if it has one."""
        kernel, *bias = self.small.get_layer(source).get_weights()
        copies = np.bincount(inputs)[inputs]
        inputs = inputs % kernel.shape[-2]
        wide = kernel[..., inputs, :][..., outputs] / copies[:, np.newaxis]
        self.large.get_layer(name).set_weights([self.noisy(wide), *(values[outputs] for values in bias)])

    def depthwise(self, name: str, source: str, channels: Any) -> None:
        (kernel,) = self.small.get_layer(source).get_weights()
        self.large.get_layer(name).set_weights([self.noisy(kernel[:, :, channels % kernel.shape[2]])])

    def norm(self, name: str, source: str, channels: Any, share: float = 1.0) -> None:
        gamma, beta, mean, variance = self.small.get_layer(source).get_weights()
        channels = channels % len(gamma)
        self.large.get_layer(name).set_weights(
            [gamma[channels] * share, beta[channels] * share, mean[channels], variance[channels]]
        )

    def block(self, name: str, source: str, inputs: Any, outputs: Any, *, added: bool) -> None:
        layers = {layer.name for layer in self.large.layers}
        expanded = inputs
        if f"{name}_expand_conv" in layers:
            width = self.large.get_layer(f"{name}_expand_conv").filters
            expanded = self.widen(self.small.get_layer(f"{source}_expand_conv").filters, width)
            self.convolution(f"{name}_expand_conv", f"{source}_expand_conv", inputs, expanded)
            self.norm(f"{name}_expand_bn", f"{source}_expand_bn", expanded)
        self.depthwise(f"{name}_dwconv", f"{source}_dwconv", expanded)
        self.norm(f"{name}_bn", f"{source}_bn", expanded)
        reduced = self.widen(
            self.small.get_layer(f"{source}_se_reduce").filters,
            self.large.get_layer(f"{name}_se_reduce").filters,
        )
        self.convolution(f"{name}_se_reduce", f"{source}_se_reduce", expanded, reduced)
        gates = expanded % self.small.get_layer(f"{source}_se_expand").filters
        self.convolution(f"{name}_se_expand", f"{source}_se_expand", reduced, gates)
        self.convolution(f"{name}_project_conv", f"{source}_project_conv", expanded, outputs)
        self.norm(f"{name}_project_bn", f"{source}_project_bn", outputs, ADDED if added else 1.0)


def grown(small: Any, large: Any, images: Any, *, seed: int = 0) -> Any:
    """Give `large` about the function of `small`.

    Args:
        small, large: EfficientNets with squeeze-and-excite; `large` without drop-connect and dropout.
        images: some photographs for `large`, float32 0–255 `[N, H, W, 3]`.
        seed: of what is random.

    Returns:
        `large`.
    """
    grower = _Grower(small, large, seed)
    names = [[layer.name for layer in model.layers] for model in (small, large)]
    own, wanted = (
        [name.removesuffix("_project_conv") for name in found if name.endswith("_project_conv")]
        for found in names
    )
    stream = grower.widen(small.get_layer("stem_conv").filters, large.get_layer("stem_conv").filters)
    grower.convolution("stem_conv", "stem_conv", np.arange(3), stream)
    grower.norm("stem_bn", "stem_bn", stream)
    outputs = stream
    for name in wanted:
        stage = name[:-1]
        source = name if name in own else max(block for block in own if block[:-1] == stage)
        if name.endswith("a"):
            width = large.get_layer(f"{name}_project_conv").filters
            outputs = grower.widen(small.get_layer(f"{source}_project_conv").filters, width)
        grower.block(name, source, stream, outputs, added=name not in own)
        stream = outputs
    top = grower.widen(small.get_layer("top_conv").filters, large.get_layer("top_conv").filters)
    grower.convolution("top_conv", "top_conv", stream, top)
    grower.norm("top_bn", "top_bn", top)
    grower.convolution("predictions", "predictions", top, np.arange(small.output_shape[-1]))
    _measure(large, set(wanted) - set(own), images)
    return large


def _measure(model: Any, blocks: set[str], images: Any) -> None:
    """Batch normalization's statistics of some blocks, from one batch."""
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0 if layer.name.split("_")[0] in blocks else 1.0
    model(images, training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
