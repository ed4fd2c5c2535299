"""One module for each format whose files say more than a decoder needs, or less than they take.

Each has a function `read(data, limits)`. It checks what the file says before a decoder takes memory for it, and hands on what
the pixels need: text, thumbnails, profiles and further frames stay behind. It raises InputError, or
IndexError, OverflowError or struct.error where what the file says of itself is not in it.
"""
