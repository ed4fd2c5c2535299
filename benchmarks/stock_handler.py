"""TorchServe's image_classifier for models that it cannot serve as it is, or not well: see `subject.stock_handler`.

Its class with a transform of one's own, as TorchServe's documentation has one write it; the steps are those of the original.
"""

from __future__ import annotations

import torch
from torchvision import transforms
from ts.torch_handler.image_classifier import ImageClassifier


class FittedImageClassifier(ImageClassifier):
    """image_classifier with the size of images, the number of labels and the threads that the model's settings call for."""

    def initialize(self, context) -> None:
        super().initialize(context)
        config = context.model_yaml_config["stock"]
        channels, height, width = config["input_size"]
        self.image_processing = transforms.Compose(
            [
                *([transforms.Grayscale()] if channels == 1 else []),
                transforms.Resize(max(height, width) * 256 // 224),
                transforms.CenterCrop((height, width)),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * channels, [0.25] * channels),
            ]
        )
        self.set_max_result_classes(min(self.topk, config["classes"]))
        torch.set_num_threads(config["threads"])
