"""What computing in bfloat16 costs in accuracy.

Logits, loss and gradient against float32 and float64, same net, same images.

    python benchmarks/bfloat16_error.py
    python benchmarks/bfloat16_error.py --json

The peer is float32 in the same run; both are compared with float64. Errors are norms of differences relative
to norms.
"""

import argparse
import json
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets

from resnet_jax import create_model

NETS = {"cifar_resnet20": 32, "cifar_resnet110": 32, "resnet50": 64}
BATCH = 16


def crops(size: int, seed: int) -> np.ndarray:
    """Returns random crops, at half the size, of scikit-learn's two photographs, less their mean."""
    photographs = [
        image[::2, ::2].astype(np.float32) for image in sklearn.datasets.load_sample_images().images
    ]
    rng = np.random.RandomState(seed)
    chosen = []
    for number in range(BATCH):
        image = photographs[number % 2]
        y, x = (rng.randint(side - size) for side in image.shape[:2])
        chosen.append(image[y : y + size, x : x + size])
    return np.stack(chosen) - np.float32(110)


def outputs(name: str, size: int, dtype: str, variables: Any) -> dict[str, np.ndarray]:
    """Returns logits in evaluation and training, and the gradient of the loss, on fixed images."""
    model = create_model(name, num_classes=10, dtype=dtype)
    rng = np.random.RandomState(0)
    images = crops(size, seed=0)
    labels = rng.randint(0, 10, BATCH)

    def loss(params: Any) -> tuple[Any, Any]:
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    evaluated = jax.jit(model.apply)(variables, images)
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in jax.tree.leaves(gradient)])
    return {"logits": np.asarray(evaluated), "training_logits": np.asarray(logits), "gradient": flat}


def initial_variables(name: str, size: int) -> Any:
    """Returns initial variables with running statistics of a batch, for a net that makes sense."""
    model = create_model(name, num_classes=10, momentum=0.0)
    images = crops(size, seed=1)
    variables = model.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct(images.shape, jnp.float32))
    _, updated = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(variables)
    return {**variables, **updated}


def measure() -> dict[str, dict[str, float]]:
    """Returns the errors by net: of bfloat16 and of float32, each against float64."""
    results = {}
    for name, size in NETS.items():
        single = initial_variables(name, size)
        double = jax.tree.map(lambda array: np.asarray(array, np.float64), single)
        exact = outputs(name, size, "float64", double)
        errors = {}
        for dtype in ("bfloat16", "float32"):
            found = outputs(name, size, dtype, single)
            for what, value in exact.items():
                errors[f"{what}_{dtype}"] = float(np.linalg.norm(found[what] - value) / np.linalg.norm(value))
        results[name] = errors
    return results


def main() -> None:
    """Prints the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = measure()
    if arguments.json:
        versions = {
            "jax": jax.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        print(json.dumps({"relative_error": results, "batch": BATCH, **versions}))
        return
    for name, errors in results.items():
        print(name)
        for what, value in errors.items():
            print(f"  {what:28} {value:.1e}")


if __name__ == "__main__":
    main()
