"""The words that the fields of a config about data may take."""

DIGITS, SYNTHETIC = "digits", "synthetic"
"""Data sets that need no files: the embedded digits, and noise."""

PHOTO_DIGITS = "photo_digits"
"""Embedded digits on pieces of photographs, which a detector of the embedded scenes begins with."""

SCENES_NAME = "scenes"
"""The embedded scenes with digits, which a detector is trained on."""

EMBEDDED = (DIGITS, SYNTHETIC, PHOTO_DIGITS, SCENES_NAME)
"""Everything that is there without files."""

DIGITS_SIDE = 16
"""Height and width of the digits in pixels."""

PIXEL, CHANNEL, PUBLISHED = "pixel", "channel", "imagenet"
"""Means: one per pixel or one per channel of the training split, and the published one of ImageNet."""

STATISTICS_SUFFIX = ".npz"
"""Suffix of the files that `resnet-jax statistics` writes, which a mean or colors may name."""

ERROR, SKIP = CORRUPT = ("error", "skip")
"""What happens to an image that cannot be decoded: it ends the run, or is skipped, counted and reported."""

SCALE, RESIZED, CENTER = CROPS = ("scale", "resized", "center")
"""How training images of any size are cropped."""
