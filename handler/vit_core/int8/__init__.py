"""Layers in int8: how an archive stores them (`layers`), and how a CPU runs them.

On a CPU with VNNI or AMX the handler finds them in the model's graph (`found`) and replaces them by oneDNN's int8 `products`,
which give the same numbers up to the order of sums: linear layers, and `convolutions` of patches. On other CPUs it replaces
them by layers in fp32, which have the same weights and do not round activations.
"""
