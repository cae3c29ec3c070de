"""Hand-written gradients and CPU forms, behind `convolve`, `max_pool` and the normalization layers."""
