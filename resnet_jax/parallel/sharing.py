"""What the first process of a run knows, on all of them."""

import json
from typing import Any

import numpy as np
from jax._src import distributed  # The key-value store has no public name.
from jaxtyping import UInt8

from resnet_jax.files import JsonValue
from resnet_jax.parallel.processes import ProcessError, Processes

_PART = 64 << 20  # Bytes that are sent at a time.
_ANSWER_MS = 600_000


def share_value(processes: Processes, topic: str, value: JsonValue) -> Any:
    """Returns the first process's value, as it comes back from JSON, on every process; all call it.

    Raises:
        ProcessError: It did not come.
    """
    if processes.count == 1:
        return value
    client: Any = distributed.global_state.client
    if processes.first:
        client.key_value_set(f"resnet_jax/shared/{topic}", json.dumps(value))
    try:
        return json.loads(client.blocking_key_value_get(f"resnet_jax/shared/{topic}", _ANSWER_MS))
    except Exception as error:
        raise ProcessError(f"the first process did not send its {topic}") from error


def share_bytes(processes: Processes, data: UInt8[np.ndarray, " n"], size: int) -> UInt8[np.ndarray, " n"]:
    """Returns the first process's bytes on every process, by the network of the devices; all call it.

    Args:
        processes: The processes of the run.
        data: The bytes; those of the first process alone matter.
        size: Number of them, on every process.
    """
    from jax.experimental import multihost_utils

    if processes.count == 1:
        return data
    parts = []
    for begin in range(0, size, _PART):
        length = min(_PART, size - begin)
        part = data[begin : begin + length] if processes.first else np.zeros(length, np.uint8)
        parts.append(np.asarray(multihost_utils.broadcast_one_to_all(part)))
    return np.concatenate(parts) if parts else data
