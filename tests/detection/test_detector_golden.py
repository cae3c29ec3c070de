"""The whole inference is that of the net composed of torchvision's parts (committed values, float64)."""

import jax
import numpy as np

from resnet_jax.detection.detecting import make_detect
from tests.detection.detector_case import DETECTOR_GOLDEN, MEAN, batch, detector, weights


def test_detections_are_those_of_torchvisions_parts() -> None:
    with jax.enable_x64(True):
        detect = jax.jit(make_detect(detector("float64")))
        found = jax.device_get(detect(weights("float64"), MEAN, batch(2)))
    with np.load(DETECTOR_GOLDEN) as stored:
        for number in range(2):
            count = len(stored[f"score{number}"])
            assert found.valid[number].sum() == count
            assert found.valid[number, :count].all()
            for part, name in ((found.score, "score"), (found.label, "label"), (found.box, "box")):
                np.testing.assert_allclose(
                    part[number, :count], stored[f"{name}{number}"], rtol=1e-6, atol=1e-6
                )
