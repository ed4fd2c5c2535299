"""Finds the pictures of a folder that are nearest to another one, by the embeddings that a served archive gives."""
