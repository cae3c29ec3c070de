"""Variants of residual nets from the papers that followed: each changes what a net is composed of, and several go together.

A variant is a function from the attributes of a ResNet to those of the variant: another block, norm, stem or shortcut handed in.
"""

from resnet_jax.models.variants.catalog import VARIANTS, Attributes, Variant, apply_variants

__all__ = ["VARIANTS", "Attributes", "Variant", "apply_variants"]
