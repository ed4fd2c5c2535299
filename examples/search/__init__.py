"""Shows `search` on pictures of digits: how many of the nearest ones are of the same digit."""
