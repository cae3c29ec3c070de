"""Trains a network: `python train.py --config=NAME --config.FIELD=VALUE --workdir=DIR`, the same as `resnet-jax train`."""

import sys

from resnet_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
