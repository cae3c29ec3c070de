"""Which functions named in a checkpoint may be imported: importing a module runs it.

Names of a short list load freely: layers and activations of flax.linen and jax.nn, optax's optimizers,
schedules and losses, and the parts of this package. Names in the user's own recipe, and on the command line,
are the user's to give. Everything else that a checkpoint or a downloaded model names has to be trusted first.
"""

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping

from resnet_jax.models.import_by_name import IMPORT_NAME, is_import_name
from resnet_jax.models.layers import ModelError

_LIBRARIES = ("flax.", "jax.", "optax.")
_OWN = ("resnet_jax.models.", "resnet_jax.training.")
SAFE_MODULES = {
    "flax.linen": _LIBRARIES,
    "jax.nn": _LIBRARIES,
    "optax": _LIBRARIES,
    "resnet_jax.models.blocks": _OWN,
    "resnet_jax.models.layers": _OWN,
    "resnet_jax.models.normalization": _OWN,
    "resnet_jax.models.shortcuts": _OWN,
    "resnet_jax.training.classification": _OWN,
    "resnet_jax.training.optimizer": _OWN,
    "resnet_jax.training.schedules": _OWN,
    "resnet_jax.training.step": _OWN,
}
"""Modules whose public functions and classes load freely, and where these must be defined."""


class UntrustedCodeError(ModelError):
    """A checkpoint names code that would be imported, and the user has not said that it is trusted."""


class _Trust:
    everything = False
    names: set[str] = set()  # noqa: RUF012 (there is one such object)


def is_safe(value: str) -> bool:
    """Returns whether a name means a public function or class of the short list.

    Example:
        >>> is_safe("flax.linen:gelu"), is_safe("os:system"), is_safe("optax:chex.os.system")
        (True, False, False)
    """
    match = IMPORT_NAME.fullmatch(value.strip())
    if not match or match["module"] not in SAFE_MODULES:
        return False
    name = match["object"]
    if "." in name or name.startswith("_"):
        return False
    found = getattr(importlib.import_module(match["module"]), name, None)
    defined = getattr(found, "__module__", None) or ""
    return callable(found) and f"{defined}.".startswith(SAFE_MODULES[match["module"]])


def trust(values: Iterable[object]) -> None:
    """Trusts names that the user has given, from now on."""
    _Trust.names |= {value for value in values if is_import_name(value)}


@contextlib.contextmanager
def trusting_code(everything: bool = True) -> Iterator[None]:
    """Trusts all names while the block runs, if `everything` is true."""
    before = _Trust.everything
    _Trust.everything = before or everything
    try:
        yield
    finally:
        _Trust.everything = before


def require_trust(named: Mapping[str, object], where: str) -> None:
    """Checks that what a checkpoint names may be imported.

    Args:
        named: Values by field; those that are no names of code are let through.
        where: The checkpoint, for the message.

    Raises:
        UntrustedCodeError: It may not; the names are listed.
    """
    if _Trust.everything:
        return
    asked = {
        field: value
        for field, value in named.items()
        if is_import_name(value) and value not in _Trust.names and not is_safe(value)
    }
    if asked:
        listed = ", ".join(f"{field}={value!r}" for field, value in asked.items())
        raise UntrustedCodeError(
            f"{where} names code that loading it would run: {listed}. If you trust it, give --trust-code, or "
            "rj.load(…, trust_code=True); its modules are looked for on your Python path, not in the download"
        )
