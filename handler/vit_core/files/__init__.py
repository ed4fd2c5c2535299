"""One module for each format whose files contain more than a decoder needs, or declare less than they take.

Each has a function `read(data, limits)`. It checks what the file declares before a decoder allocates memory, and passes on only
what the pixels need: it leaves out text, thumbnails, profiles and further frames. It raises InputError; it may also raise
IndexError, OverflowError or struct.error if the file is cut off or refers to a place outside itself.
"""
