"""Recipe of the reference SLM: generator, training, export to GGUF and evaluation, from nothing to a model file."""

NAME = "outpost-reference-slm"
