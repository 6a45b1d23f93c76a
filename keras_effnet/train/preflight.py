"""What can be told to be wrong with a run before it has a folder."""

from __future__ import annotations

from keras_effnet.errors import WeightsError, unknown_name
from keras_effnet.network.table import stage_of
from keras_effnet.network.variants import Variant, architecture_of, get_variant
from keras_effnet.train.listing import find_data
from keras_effnet.train.settings import Settings


def check(settings: Settings) -> None:
    """Make sure that the data are there, the weights fit and the block to unfreeze exists.

    Published weights are fetched here, if they are not on this machine yet. Keras is not imported.

    Raises:
        InvalidInputError: an unknown variant or block, or no such data.
        WeightsError: weights that are missing, damaged or of another variant.
    """
    variant = get_variant(settings.variant)
    _check_block(variant, settings.unfreeze)
    find_data(settings.data)
    _check_weights(settings.weights, variant)


def _check_block(variant: Variant, wanted: str) -> None:
    blocks = [block.name for block in architecture_of(variant).blocks]
    stages = dict.fromkeys(map(stage_of, blocks))
    known = ["stem", *stages, *blocks, "top"]
    if wanted not in known:
        raise unknown_name("unfreeze", wanted, known)


def _check_weights(weights: str | None, variant: Variant) -> None:
    from keras_effnet.weights.facts import guess_variant
    from keras_effnet.weights.readers import open_checkpoint, tensorflow
    from keras_effnet.weights.sources import plan_weights

    source = plan_weights(weights, variant, include_top=False).source
    if source is None or tensorflow.is_archive(source):
        return  # unpacking an archive takes long; what is in it shows when the network is built
    with open_checkpoint(source) as checkpoint:
        found = guess_variant(checkpoint.layers)
    if found not in (None, variant.name):
        raise WeightsError(
            f"Expected weights of {variant.name}. Received: {str(source)!r}, which are of {found}. "
            f"Pass other --weights, or --model {found}."
        )
