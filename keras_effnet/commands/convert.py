"""`keras-effnet convert`: weights from any readable format to one that needs no flags."""

from __future__ import annotations

import argparse

NAME = "convert"
HELP = "convert a weight file or published set to .weights.h5 or .safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SRC", help="weight file, checkpoint folder or prefix, or published set"
    )
    parser.add_argument("target", metavar="DST", help="file that ends in .weights.h5 or .safetensors")
    parser.add_argument(
        "--model", metavar="VARIANT", help="needed for a published set; else recognized by shapes"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="take the raw variables of a training checkpoint, not their averages",
    )
    parser.add_argument(
        "--preprocessing", metavar="NAME", help="imagenet, advprop or lite, if the file does not say"
    )
    parser.add_argument("--padding", metavar="NAME", help="same or symmetric, if the file does not say")
    parser.add_argument("--epsilon", type=float, help="of batch normalization, if the file does not say")


def run(arguments: argparse.Namespace) -> int:
    from keras_effnet.system.quiet import import_keras

    import_keras()
    from keras_effnet.weights.convert import convert

    path = convert(
        arguments.source,
        arguments.target,
        variant=arguments.model,
        ema=not arguments.raw,
        preprocessing=arguments.preprocessing,
        padding=arguments.padding,
        epsilon=arguments.epsilon,
    )
    print(path)
    return 0
