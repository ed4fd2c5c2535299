"""Recognizes the format of a file by its first bytes: a supported one, or one that the error message names."""

from __future__ import annotations

import re

from vit_core.errors import InputError

# Decoders that read pixels from the bytes alone. EPS, for one, would run Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

# How files of the supported formats begin, except for AVIF, whose container other formats share.
_READ = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBPVP8[ XL]",
    # Text may begin as these two do: a GIF has numbers next, a BMP the size of a header, of which there are seven.
    "GIF": rb"GIF8[79]a(?![\s -~]{7})",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00",
    # Pillow also reads files that have the two bytes of the version in the wrong order. Canon's RAW photographs begin so, too.
    "TIFF": rb"(?!II\*\x00....CR)(MM\x00[*+]|II[*+]\x00|MM\*\x00|II\x00\*)",
    "JPEG2000": rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n",
    "PPM": rb"(P[1-6]|Pf)(\s+[\d#]|#)",
}

# Names and beginnings of files that people send and that are not supported. The first that matches counts.
_OTHERS = {
    "a RAW photograph (CR2)": rb"II\*\x00....CR\x02",
    "a RAW photograph": rb"IIR[OS]\x08|IIU\x00|FUJIFILMCCD-RAW",
    "a JPEG XL image": rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
    "a JPEG XR image": rb"II\xbc\x01",
    "a PDF document": rb".{0,1019}?%PDF-",
    "a PostScript file (EPS)": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an SVG drawing": rb"\s*(<\?xml.{0,2000}?)?(<!--.{0,2000}?-->\s*|<!DOCTYPE svg.{0,500}?>\s*)*<svg",
    "an HTML page": rb"(?i:\s*(<\?xml.{0,200}?)?(<!--.{0,500}?-->\s*)?<(!doctype html|html|head|body))",
    "an XML file": rb"\s*<\?xml",
    "a Photoshop image (PSD)": rb"8BPS",
    "a GIMP image (XCF)": rb"gimp xcf",
    "a DICOM file": rb".{128}DICM",
    "an icon (ICO)": rb"\x00\x00[\x01\x02]\x00[^\x00]",
    "an icon (ICNS)": rb"icns",
    "an OpenEXR image": rb"v/1\x01",
    "a Radiance image (HDR)": rb"#\?R",
    "a FITS image": rb"SIMPLE  =",
    "a DDS texture": rb"DDS ",
    "a QOI image": rb"qoif",
    "a colour PFM image": rb"PF\s",
    "a PAM image": rb"P7\s",
    "a DjVu document": rb"AT&TFORM",
    "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF",
    "a NumPy array": rb"\x93NUMPY",
    "an HDF5 file": rb"\x89HDF\r\n",
    "a video (Matroska or WebM)": rb"\x1aE\xdf\xa3",
    "a video (AVI)": rb"RIFF....AVI ",
    "a video (MPEG)": rb"\x00\x00\x01[\xb3\xba]",
    "a sound file (WAV)": rb"RIFF....WAVE",
    "a ZIP archive": rb"PK(\x03\x04|\x05\x06)",
    "a gzip archive": rb"\x1f\x8b",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a RAR archive": rb"Rar!\x1a\x07",
    "a Git LFS pointer, not the file that it stands for": rb"version https://git-lfs",
    "base64 as plain text (send it in JSON)": rb"/9j/|iVBORw0KGgo|R0lGOD|UklGR",
}

# Names and brands of files in the container that AVIF shares (ISO/IEC 14496-12).
_AVIF_BRANDS = {b"avif", b"avis"}
_BRANDS = {
    "a HEIC image": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"},
    "a RAW photograph (CR3)": {b"crx "},
    "a HEIF image": {b"mif1", b"mif2", b"msf1", b"miaf"},
    "a QuickTime or MP4 video": {b"qt  ", b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"M4V ", b"avc1"},
}
# A file names a dozen brands or fewer.
_MOST_BRANDS = 64


def identify(data: bytes) -> str:
    """Returns the one of FORMATS that `data` begins as. Raises InputError 415 for any other, and names the format if it is
    known.
    """
    start = bytes(data[:4096])
    for format, begin in _READ.items():
        if re.match(begin, start, re.DOTALL):
            return format
    if start[4:8] == b"ftyp":
        if other := _unread_brand(start):
            raise unsupported(other)
        return "AVIF"
    raise unsupported(next((name for name, begin in _OTHERS.items() if re.match(begin, start, re.DOTALL)), None))


def unsupported(name: str | None) -> InputError:
    """Returns the error for an unsupported format. `name` has an article: "a HEIC image"."""
    formats = ", ".join(FORMATS)
    if name:
        message = f"this is {name}, which is not supported: send it as JPEG or PNG, or as another of {formats}"
        return InputError(415, "UnsupportedImage", message)
    return InputError(415, "UnsupportedImage", f"not an image in a supported format ({formats})")


def _unread_brand(start: bytes) -> str | None:
    """Names the format whose brands are in `start`; None for AVIF."""
    end = min(int.from_bytes(start[:4], "big"), 16 + 4 * _MOST_BRANDS)
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, end, 4))]
    if _AVIF_BRANDS.intersection(brands):
        return None
    return next(
        (name for name, known in _BRANDS.items() if known.intersection(brands)), "a video or another file of MP4's kind"
    )
