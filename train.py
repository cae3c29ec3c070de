"""Trains a network; the same as `resnet-jax train`: `python train.py --config=NAME --config.FIELD=VALUE`."""

import sys

from resnet_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
