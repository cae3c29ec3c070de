"""Trains a net: `python train.py`, or `python train.py --config=NAME --config.field=value --workdir=DIR`."""

import sys

from resnet_jax.entry import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
