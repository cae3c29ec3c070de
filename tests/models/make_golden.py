"""Writes tests/golden/models/*.npz with the PyTorch reference alone, in float64.

Python -m tests.models.make_golden.
"""

import numpy as np
import torch

from tests.models import torch_reference
from tests.models.parity import CASES, GOLDEN, NUM_CLASSES, Results, digest, draw, images_and_labels


def run_reference(name: str, dtype: torch.dtype) -> Results:
    """Returns what PyTorch computes for a case."""
    case = CASES[name]
    net = torch_reference.create(case.architecture, case.shortcut, NUM_CLASSES).to(dtype)
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    drawn = {
        key: torch.from_numpy(draw(key, tuple(value.shape)))
        for key, value in net.state_dict().items()
        if key not in counters
    }
    net.load_state_dict(drawn | counters)
    images, labels = images_and_labels(name, case)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(dtype).contiguous()
    with torch.no_grad():
        eval_logits = net.eval()(batch).numpy()
    train_logits = net.train()(batch)
    torch.nn.functional.cross_entropy(train_logits, torch.from_numpy(labels)).backward()
    return Results(
        eval_logits=eval_logits,
        train_logits=train_logits.detach().numpy(),
        statistics={key: value.numpy() for key, value in net.named_buffers() if key not in counters},
        gradients={key: value.grad.numpy() for key, value in net.named_parameters()},
    )


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        results = run_reference(name, torch.float64)
        arrays = {"eval_logits": results.eval_logits, "train_logits": results.train_logits}
        for kind in ("statistics", "gradients"):
            names, rows = digest(getattr(results, kind))
            arrays |= {f"{kind}_names": np.array(names), kind: rows}
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
