r"""ImageNet on a slice of TPUs: global batches of 1,024 to 32,768, after Goyal et al. (arXiv 1706.02677).

    python train.py --config=imagenet_pod:8192 \
        --config.data.source=gs://BUCKET/imagenet --workdir=gs://BUCKET/runs/pod
    python train.py --config=imagenet_pod:32768 \
        --config.optimizer.name=lars --config.optimizer.learning_rate=10
    python train.py --config=imagenet_pod:1024,resnet101
    resnet-jax plan --config imagenet_pod:32768 --topology v5e:16x16   (does it fit, how long should it take)

The argument is the batch (default 8192) and, after a comma, the net (default resnet50). 90 epochs of
1,281,167 images.

Departures from the paper of the nets (arXiv 1512.03385), each a field:

- batch_size: the argument instead of 256, and 90 epochs instead of 60e4 iterations. Goyal et al. lose
  accuracy above 8,192 (Fig. 1); optimizer.name=lars (arXiv 1708.03888), which acts on kernels alone, is meant
  for those. It needs a rate of its own, of the order of ten at 32,768, which is not tuned here: set
  optimizer.learning_rate and optimizer.warmup_rate with it.
- optimizer.learning_rate: 0.1 · batch / 256, linear scaling, divided by 10 at epochs 30, 60 and 80 instead of
  on a plateau.
- optimizer.warmup_steps, warmup_form: 5 epochs from 0.1 to that rate, by equal steps (Goyal et al., §2.2).
- optimizer.momentum_form: pytorch, the rate outside the momentum (Goyal et al., §3, eq. 9), which needs no
  correction as it changes.
- optimizer.decay_mask: kernels; scales and biases of normalization (Goyal et al., §5.1) and the bias of the
  last layer do not decay.
- optimizer.label_smoothing: 0.1 (arXiv 1512.00567, §7). Goyal et al. have none.
- model.variants, zero_last_scale: the scale of the last normalization of every block begins at 0, so that
  blocks begin as their shortcut (Goyal et al., §5.1).
- model.stride_on: 3x3, known as v1.5: the 3×3 convolution of a bottleneck strides instead of the first 1×1.
- model.dtype: bfloat16 in the computation; parameters, statistics, sums over pixels, logits and the loss are
  float32.
- data.crop: resized, 8 to 100 % of the area at a ratio of 3/4 to 4/3 (arXiv 1409.4842; Goyal et al., §5.1),
  instead of scale.

As in the paper: He initialization, momentum 0.9, decay 1e-4, mirroring and color, and statistics over groups
of 32 images, which is also what Goyal et al. have on a GPU whatever the global batch.

Hardware: a TPU slice of 8 to 256 chips. Time: docs/pods.md has the compiler's estimates. Error: not run with
this code; Goyal et al. report 23.7 ± 0.1 % at batches up to 8,192 for ResNet-50.
"""

from resnet_jax.training.config import Config, base_config

IMAGES, EPOCHS, WARMUP_EPOCHS = 1_281_167, 90, 5
LEAST, MOST = 1_024, 32_768


def get_config(argument: str = "8192") -> Config:
    """Returns the recipe of a global batch and a net, separated by a comma."""
    batch, _, net = argument.partition(",")
    size = int(batch)
    if not LEAST <= size <= MOST or size % 32:
        raise ValueError(f"the batch is {size}; it must be {LEAST} to {MOST}, and a multiple of 32")
    epoch = IMAGES / size
    config = base_config()
    config.batch_size = size
    config.model.name = net or "resnet50"
    config.model.dtype = "bfloat16"
    config.model.group_size = 32
    config.model.stride_on = "3x3"
    config.model.variants = ("zero_last_scale",)
    config.data.source = "imagenet2012"
    config.data.test_split = "validation"
    config.data.mean = "imagenet"
    config.data.mirror = True
    config.data.color = "imagenet"
    config.data.image_size = 224
    config.data.crop = "resized"
    config.data.test_scale = 256
    config.data.synthetic_image_size = 224
    config.data.synthetic_classes = 1000
    config.optimizer.learning_rate = 0.1 * size / 256
    config.optimizer.boundaries = tuple(round(at * epoch) for at in (30, 60, 80))
    config.optimizer.warmup_steps = round(WARMUP_EPOCHS * epoch)
    config.optimizer.warmup_rate = 0.1
    config.optimizer.warmup_form = "linear"
    config.optimizer.momentum = 0.9
    config.optimizer.momentum_form = "pytorch"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_mask = "kernels"
    config.optimizer.label_smoothing = 0.1
    config.run.steps = round(EPOCHS * epoch)
    config.run.workers = None
    config.run.log_every = 20
    config.run.evaluate_every = round(epoch)
    config.run.checkpoint_every = round(epoch)
    return config
