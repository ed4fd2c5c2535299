"""Finds the pictures in a folder that are nearest to a given one, by the embeddings of a served archive."""
