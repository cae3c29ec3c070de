"""Responses of layers (Fig. 7), and how far blocks are from the identity, of any network.

A layer is a 3×3 convolution; in bottlenecks too, whose 1×1 convolutions are left out. Its response is the
output of the module that takes the convolution's output, which is its batch normalization: before the ReLU,
and before the addition. Where no module takes it, as in VGG, the response is the convolution's own output.

The calls of modules are intercepted (`flax.linen.intercept_methods`), so that the blocks need not know. Every
kind of block is one compiled program: 1202 layers compile as quickly as 20.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Int, PyTree

from resnet_jax.analysis.losses import Variables, loss_function
from resnet_jax.models import ScannedStage, Stage, stack_blocks, unstack_blocks
from resnet_jax.models.shortcuts import no_shortcut

NormalizedImages = Float[Array | np.ndarray, "n h w 3"]


@dataclasses.dataclass(frozen=True)
class Responses:
    """Responses of a network to images, by layer and by block, in the order of computation.

    Attributes:
        deviations: Standard deviation of each layer's response over images, pixels and channels, by the path
            of its convolution: "stage1/block1/conv1".
        distances: ‖F(x)‖ / ‖x‖ of each residual block over all images, x being its input and F(x) what is
            added to the shortcut; by the block's path. Empty for nets without shortcuts.
    """

    deviations: dict[str, float]
    distances: dict[str, float]


def measure_responses(
    model: nn.Module, variables: Variables, images: NormalizedImages, *, batch_size: int = 128
) -> Responses:
    """Returns the responses of a network in evaluation, with its running statistics.

    Args:
        model: Any network, scanned or not.
        variables: Its `params` and `batch_stats`.
        images: Images normalized as for `model.apply`.
        batch_size: Images that are computed at a time; the result does not depend on it.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> list(measure_responses(model, variables, images).deviations)[:2]
        ['stem/conv', 'stage1/block1/conv1']
    """
    model, variables = _unrolled(model, variables)
    recorder = _Recorder()
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    parts = [
        jax.device_get(recorder.record(partial(model.apply, variables, jnp.asarray(batch), train=False)))
        for batch in batches
    ]
    weights = np.array(list(map(len, batches))) / len(images)
    return Responses(
        {layer: _deviation([part.moments[layer] for part in parts], weights) for layer in parts[0].moments},
        {
            block: float(
                np.sqrt(np.divide(*np.array([part.norms[block] for part in parts], np.float64).sum(0)))
            )
            for block in parts[0].norms
        },
    )


def find_layers(model: nn.Module, variables: Variables, images: NormalizedImages) -> list[str]:
    """Returns the paths of the 3×3 layers, in the order of computation; nothing is computed."""
    model, variables = _unrolled(model, variables)
    record = jax.eval_shape(
        lambda v, x: _Recorder().record(lambda: model.apply(v, x, train=False)),
        variables,
        jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype),
    )
    return list(record.moments)


def gradient_norms(
    model: nn.Module,
    variables: Variables,
    images: Float[Array | np.ndarray, "n h w 3"],
    labels: Int[Array | np.ndarray, " n"],
    *,
    train: bool = True,
) -> dict[str, float]:
    """Returns the norm of the gradient with respect to the kernel of every 3×3 layer, as in `Responses`.

    The loss is the mean cross-entropy of the images, without weight decay.

    Args:
        model: Any network, scanned or not.
        variables: Its `params` and `batch_stats`.
        images: Images normalized as for `model.apply`, and with `train` a multiple of the model's
            `group_size`.
        labels: Their labels.
        train: Normalize with the batch's statistics, as in training; else with the running ones.
    """
    layers = find_layers(model, variables, images)
    if model.scannable and not model.scanned:
        model, variables = model.clone(stage=ScannedStage), stack_blocks(variables)
    loss = loss_function(model, variables, jnp.asarray(images), jnp.asarray(labels), batch_statistics=train)
    gradient = jax.device_get(jax.jit(jax.grad(loss))(variables["params"]))
    kernels = flatten_dict(unstack_blocks(gradient), sep="/")
    return {layer: float(np.linalg.norm(kernels[f"{layer}/kernel"].astype(np.float64))) for layer in layers}


def _unrolled(model: nn.Module, variables: Variables) -> tuple[nn.Module, Variables]:
    if not model.scanned:
        return model, variables
    return model.clone(stage=Stage), unstack_blocks(variables)


Pair = tuple[Array, Array]
# Of a module: the blocks and layers of this package give an array, a network perhaps its features too.
Output: TypeAlias = PyTree[Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Record:
    """A batch's responses (mean, variance) by layer and norms (‖F(x)‖², ‖x‖²) by block, in calling order.

    A response that no module has taken so far stands for itself. The dictionaries are ordered ones, since JAX
    sorts the keys of others.
    """

    moments: dict[str, Output] = dataclasses.field(default_factory=OrderedDict)
    norms: dict[str, Pair] = dataclasses.field(default_factory=OrderedDict)


@dataclasses.dataclass
class _Recorder:
    """Intercepts the calls of modules, and keeps the programs of blocks from one batch to the next."""

    _programs: dict[Hashable, Callable[[Variables, Array], tuple[Output, _Record]]] = dataclasses.field(
        default_factory=dict
    )
    _record: _Record = dataclasses.field(default_factory=_Record)

    def record(self, call: Callable[[], Output]) -> _Record:
        """Returns what is seen in the call of a network."""
        with nn.intercept_methods(self._intercept):
            return self._collect(call)[1]

    def _collect(self, call: Callable[[], Output]) -> tuple[Output, _Record]:
        outer, self._record = self._record, _Record()
        output = call()
        record, self._record = self._record, outer
        for layer, response in record.moments.items():
            if isinstance(response, Array):
                record.moments[layer] = _moments(response)
        return output, record

    def _intercept(
        self,
        call: Callable[..., Output],
        arguments: tuple[Array, ...],
        options: Mapping[str, object],
        context: nn.module.InterceptorContext,
    ) -> Output:
        module = context.module
        if context.method_name != "__call__" or not arguments:
            return call(*arguments, **options)
        if hasattr(module, "shortcut") and hasattr(module, "stride") and module.path:  # A block.
            return self._block(module, *arguments)
        output = call(*arguments, **options)
        for layer, response in self._record.moments.items():
            if response is arguments[0]:
                self._record.moments[layer] = _moments(output)
        kernel = module.variables.get("params", {}).get("kernel")
        if kernel is not None and kernel.ndim == 4 and kernel.shape[:2] == (3, 3):
            self._record.moments["/".join(module.path)] = output
        return output

    def _block(self, block: nn.Module, x: Array) -> Array:
        path = "/".join(block.path)
        unbound, variables = block.unbind()
        kind = _kind(unbound)
        if kind not in self._programs:
            alone = unbound.clone(name=None, parent=None)
            self._programs[kind] = jax.jit(
                lambda variables, x: self._collect(lambda: self._residual(alone, variables, x))
            )
        output, record = self._programs[kind](variables, x)
        self._record.moments |= {f"{path}/{layer}": moments for layer, moments in record.moments.items()}
        if record.norms:
            self._record.norms[path] = record.norms[""]
        return output

    def _residual(self, block: nn.Module, variables: Variables, x: Array) -> Array:
        """Returns a block's output, and records ‖F(x)‖² and ‖x‖²: F(x) is the sum less the shortcut."""
        passed, activated = [], []

        def shortcut(*arguments: Array, **options: object) -> Array:
            passed.append(block.shortcut(*arguments, **options))
            return passed[-1]

        def activation(x: Array) -> Array:
            activated.append((x, block.activation(x)))
            return activated[-1][1]

        output: Output = block.clone(shortcut=shortcut, activation=activation).apply(variables, x)
        if block.shortcut is not no_shortcut:
            total = next((before for before, after in activated if after is output), output)
            self._record.norms[""] = (_square_sum(total - passed[-1]), _square_sum(x))
        return output


def _kind(value: object) -> Hashable:
    """Returns what is equal for two modules that compute the same function of variables and input."""
    if isinstance(value, partial):
        return (
            value.func,
            value.args,
            tuple((name, _kind(each)) for name, each in sorted(value.keywords.items())),
        )
    if isinstance(value, nn.Module):
        names = [field.name for field in dataclasses.fields(value) if field.name not in ("name", "parent")]
        return type(value), tuple((name, _kind(getattr(value, name))) for name in names)
    return value


def _moments(x: Array) -> Pair:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x.mean(), x.var()


def _square_sum(x: Array) -> Array:
    return jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))).sum()


def _deviation(moments: Sequence[Pair], weights: Float[np.ndarray, " n"]) -> float:
    """Returns the standard deviation over all batches by the law of total variance."""
    means, variances = np.array(moments, np.float64).T
    mean = weights @ means
    return float(np.sqrt(weights @ (variances + np.square(means - mean))))
