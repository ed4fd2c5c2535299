"""From a model's name to the eager model: which source it comes from."""

from __future__ import annotations

from export.options import Options
from export.sources.classifier import Classifier
from export.sources.hub import go_offline_without_network, transformers_repository
from export.sources.name import Kind
from export.sources.own_module import own_classifier
from export.sources.timm_model import timm_classifier
from export.sources.transformers_folder import is_transformers_folder, transformers_classifier


def create_classifier(options: Options) -> Classifier:
    """The model that the options name, with the weights that they ask for.

    Weights come from the checkpoint if one is given, else from the model's own pretrained ones, else they are random.
    Raises ExportError for an unknown name, weights that cannot be had or do not fit, and a model that is no classifier where it
    is to classify: embeddings need no head.
    """
    name = options.name
    if name.kind == Kind.MODULE:
        return own_classifier(options)
    if name.kind == Kind.FOLDER and is_transformers_folder(name.path):
        return transformers_classifier(options, name.path, "its own")
    if name.kind == Kind.HUB and options.pretrained:
        go_offline_without_network()
        if folder := transformers_repository(options.model):
            return transformers_classifier(options, folder, f"pretrained, {options.model}")
    return timm_classifier(options)
