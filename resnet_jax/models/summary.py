"""What a net is made of: output shape, parameters and multiply-adds of every layer, from shapes alone."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from resnet_jax.console import format_table
from resnet_jax.files import JsonObject

ModulePath = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a net.

    Attributes:
        path: Names of the modules from the net to the layer, joined by "/": "stage1/block1/conv1".
        kind: Class of the layer.
        output_shape: Shape of the output of one image, without the batch.
        params: Number of trained parameters of the layer; running statistics are not trained.
        macs: Multiply-adds of the layer for one image.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """The layers that have parameters or multiply-adds, in the order of computation, and their sums."""

    rows: tuple[Layer, ...]
    params: int
    macs: int

    def to_table(self) -> str:
        """Returns a table for people: a line for every layer, and the sums at its foot."""
        header = ["layer", "kind", "output", "parameters", "multiply-adds"]
        rows = [
            [row.path, row.kind, " × ".join(map(str, row.output_shape)), f"{row.params:,}", f"{row.macs:,}"]
            for row in self.rows
        ]
        footer = ["sum", "", "", f"{self.params:,}", f"{self.macs:,}"]
        return format_table(header, rows, footer=footer, text_columns=3)

    def to_json(self, name: str) -> JsonObject:
        """Returns name, params, macs and layers, a list of the attributes of every layer."""
        layers = [asdict(row) | {"output_shape": list(row.output_shape)} for row in self.rows]
        return {"name": name, "params": self.params, "macs": self.macs, "layers": layers}


def summarize(model: nn.Module, image_size: int) -> Summary:
    """Returns output shape, parameters and multiply-adds of a net by layer, for one square image.

    Multiply-adds are those of convolutions and products of matrices, the "FLOPs" of the paper (Table 1). They
    are counted in the traced program, whichever modules wrote it; no arithmetic is done.

    Args:
        model: Takes float32[1, image_size, image_size, 3].
        image_size: Height and width in pixels.

    Example:
        >>> summarize(create_model("resnet50"), image_size=224).macs
        3857973248
    """
    calls: list[ModulePath] = []
    layers: dict[ModulePath, tuple[str, tuple[int, ...]]] = {}

    def follow(
        call: Callable[..., object],
        arguments: tuple[object, ...],
        options: Mapping[str, object],
        context: nn.module.InterceptorContext,
    ) -> object:
        calls.append(context.module.path)
        with jax.named_scope(f"call#{len(calls) - 1}#"):
            output = call(*arguments, **options)
        if isinstance(output, jax.Array):
            layers[context.module.path] = (type(context.module).__name__, output.shape[1:])
        return output

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(follow):
        program, (_, variables) = jax.make_jaxpr(model.init_with_output, return_shape=True)(
            jax.random.key(0), image
        )
    params: Counter[ModulePath] = Counter()
    for path, array in flatten_dict(variables["params"]).items():
        params[path[:-1]] += math.prod(array.shape)
    macs: Counter[ModulePath] = Counter()
    for call, count in _count(program.jaxpr, call=0).items():
        macs[calls[call]] += count
    rows = (
        Layer("/".join(path), *layers[path], params[path], macs[path])
        for path in layers
        if params[path] or macs[path]
    )
    return Summary(tuple(rows), params.total(), macs.total())


def _count(program: Jaxpr, call: int) -> Counter[int]:
    """Returns the multiply-adds of a program by the innermost call of a module, which is `call` by default.

    The scope of an equation names its calls; that of an inner program continues the equation's.
    """
    counts: Counter[int] = Counter()
    for equation in program.eqns:
        scopes = re.findall(r"call#(\d+)#", str(equation.source_info.name_stack))
        inner = int(scopes[-1]) if scopes else call
        counts[inner] += _of_equation(equation)
        parts = [_count(part, inner) for part in _programs(equation)]
        if (
            equation.primitive.name == "cond"
        ):  # one branch runs; of those for platforms the last one, which is for any
            parts = [
                parts[-1] if equation.params.get("branches_platforms") else max(parts, key=Counter.total)
            ]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for part in parts:
            counts.update({key: times * count for key, count in part.items()})
    return counts


def _of_equation(equation: JaxprEqn) -> int:
    """Returns the multiply-adds of a convolution or a product of matrices, 0 for anything else."""
    if equation.primitive.name == "conv_general_dilated":
        kernel, filters = _shape(equation.invars[1]), equation.params["dimension_numbers"].rhs_spec[0]
        terms = math.prod(kernel) // kernel[filters]
    elif equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
    else:
        return 0
    return terms * math.prod(_shape(equation.outvars[0]))


def _shape(value: Var | Literal) -> tuple[int, ...]:
    return tuple(getattr(value.aval, "shape", ()))


def _programs(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """Yields the programs inside an equation: of a jit, a scan, a custom derivative, or branches."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
