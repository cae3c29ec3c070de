"""Faster R-CNN on a residual net (appendices A and B): boxes, proposals, regions, training and metrics."""
