"""`python -m resnet_jax COMMAND`: the same as `resnet-jax COMMAND`."""

import sys

from resnet_jax.cli import main

sys.exit(main())
