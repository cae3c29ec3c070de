"""Other names of config fields: those of earlier versions, and those of other programs."""

RENAMED = {
    "data.colour": "data.color",
    "data.colour_deviation": "data.color_deviation",
    "initial.workdir": "initial.source",
    "images": "inference",
    "images.resize": "inference.resize",
    "images.crop": "inference.crop",
    "images.class_names": "inference.class_names",
    "optimizer.decayed": "optimizer.decay_mask",
}
"""Fields of config format 1 that have another name since, and that name."""

RENAMED_VALUES = {("data.crop", "centre"): "center"}
"""Values of config format 1 that are spelled in another way since."""

USUAL_NAMES = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "decay": "optimizer.weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "arch": "model.name",
    "net": "model.name",
    "optim": "optimizer.name",
    "dataset": "data.source",
    "num_workers": "run.workers",
    "gpus": "run.devices",
}
"""Fields by the names that other programs give them."""
