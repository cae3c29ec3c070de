"""Writes tests/golden/detection/detector.npz with PyTorch and torchvision, in float64.

Python -m tests.detection.make_detector_golden, in an environment with torchvision and this package.
"""

import numpy as np
import torch

from resnet_jax.detection.profiles import PROFILES
from tests.detection.detector_case import CLASSES, DETECTOR_GOLDEN, MEAN, images, weights
from tests.detection.torch_detector import TorchDetector


def main() -> None:
    """Writes the detections of two images."""
    model = TorchDetector(PROFILES["scenes"], CLASSES, MEAN).double().eval()
    model.load(weights("float64"))
    out = {}
    with torch.inference_mode():
        for number, found in enumerate(model(torch.tensor(images(2)).permute(0, 3, 1, 2))):
            out |= {
                f"{name}{number}": part.numpy()
                for name, part in zip(("box", "score", "label"), found, strict=True)
            }
    np.savez_compressed(DETECTOR_GOLDEN, **out)


if __name__ == "__main__":
    main()
