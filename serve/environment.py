"""The environment that a process with models needs, whichever server starts it."""

# Read when a process starts: how often an idle thread of OpenMP, with which PyTorch computes on CPUs, looks for work before it
# sleeps. By default it looks for milliseconds, on cores that the front end wants, and beside another busy program a ViT-B takes
# twice as long for an image. A tenth of this is too little: threads fall asleep between two operators of a small model.
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}
