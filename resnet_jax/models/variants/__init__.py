"""Variants of residual nets from later papers; several can be combined.

A variant is a function from the attributes of a ResNet to those of the variant: another block, norm, stem or
shortcut.
"""

from resnet_jax.models.variants.catalog import VARIANTS, Attributes, Variant, apply_variants

__all__ = ["VARIANTS", "Attributes", "Variant", "apply_variants"]
