"""Where a model comes from: timm and its hub, a folder that transformers saved, a module of the user's; and its weights."""
