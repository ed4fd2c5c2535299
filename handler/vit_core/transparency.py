"""Decides what shows where a picture is transparent: white."""

from __future__ import annotations

from PIL import Image


def over_white(image: Image.Image) -> Image.Image:
    """Lays `image`, in any mode of 8 bits, over white."""
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # Pillow cannot convert this mode to colours
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def without_empty_alpha(image: Image.Image) -> Image.Image:
    """Removes the alpha of a BMP if it is zero everywhere: the program that wrote the file left the byte unused, and Windows
    and browsers show such a picture.
    """
    return image.convert("RGB") if image.mode == "RGBA" and image.getextrema()[3] == (0, 0) else image


def without_data_as_alpha(image: Image.Image) -> Image.Image:
    """Removes the alpha of a TIFF if it is another band of data, such as near infrared. TIFF has one number for both.

    A true alpha has pixels that are fully opaque, and most of its pixels are fully opaque or fully transparent; a band of data
    has all values.
    """
    if image.mode not in ("LA", "RGBA", "PA"):
        return image
    counts = image.getchannel("A").histogram()
    if counts[255] and 2 * (counts[0] + counts[255]) >= sum(counts):
        return image
    if image.mode == "PA":
        image = image.convert("RGBA")
    return image.convert("L" if image.mode == "LA" else "RGB")
