"""Writes EER files (Electron Event Representation) for tests: a strip of run lengths and sub-pixel places a frame.

The format, from what imagecodecs decodes: least significant bit first, a run length of ``run_bits`` bits; all ones:
skip that many pixels, no event; otherwise an electron so many pixels on, with its place in the pixel in two times two
bits, x first, the higher bit of each inverted.
"""

import struct

import numpy as np

WIDTHS = {65000: 8, 65001: 7}  # bits of a run length by TIFF compression


def encode(pixels, sub_x, sub_y, n_pixels, run_bits=7):
    """Bytes of one frame: events at sorted linear ``pixels``, quarters 0..3 of a pixel."""
    most = (1 << run_bits) - 1
    word, used, position = 0, 0, 0

    def put(value, bits):
        nonlocal word, used
        word |= int(value) << used
        used += bits

    for pixel, x, y in zip(pixels, sub_x, sub_y, strict=True):
        run = int(pixel) - position
        while run >= most:
            put(most, run_bits)
            run -= most
        put(run, run_bits)
        put((int(x) ^ 2) | ((int(y) ^ 2) << 2), 4)
        position = int(pixel) + 1
    while n_pixels - position >= most:  # to the end of the frame exactly, so that padding is no event
        put(most, run_bits)
        position += most
    if position < n_pixels:
        put(n_pixels - position, run_bits)
    return word.to_bytes((used + 7) // 8, "little")


def random_events(rng, shape, mean):
    """Sorted linear pixels with their quarters."""
    pixels = np.flatnonzero(rng.random(shape[0] * shape[1]) < mean)
    return pixels, rng.integers(0, 4, len(pixels)), rng.integers(0, 4, len(pixels))


def image(events, shape, upsampling):
    """What a decoder has to make of events: counts on the up-sampled grid."""
    pixels, x, y = events
    out = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.uint8)
    row, column = np.divmod(pixels, shape[1])
    drop = {1: 2, 2: 1, 4: 0}[upsampling]
    np.add.at(out, (row * upsampling + (y >> drop), column * upsampling + (x >> drop)), 1)
    return out


def metadata(**items):
    """The acquisition metadata that tag 65001 holds."""
    units = {
        "totalDose": "e/pixel",
        "exposureTime": "s",
        "meanDoseRate": "e/pixel/s",
        "sensorPixelSize.width": "m",
        "sensorPixelSize.height": "m",
    }
    rows = "".join(
        f'<item name="{name}"' + (f' unit="{units[name]}"' if name in units else "") + f">{value}</item>"
        for name, value in items.items()
    )
    return f"<metadata>{rows}</metadata>".encode()


def write_eer(path, strips, shape, compression=65001, widths=None, **items):
    """A BigTIFF file of encoded frames, with the metadata everywhere; ``widths`` go into tags 65007 to 65009."""
    with open(path, "wb") as out:
        out.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link = 8  # where the offset of the next directory goes
        about = metadata(**items)
        for strip in strips:
            start = out.tell()
            out.write(strip + about)
            tags = [
                (256, 4, 1, shape[1]),
                (257, 4, 1, shape[0]),
                (258, 3, 1, 1),
                (259, 3, 1, compression),
                (262, 3, 1, 1),
                (273, 16, 1, start),
                (277, 3, 1, 1),
                (278, 4, 1, shape[0]),
                (279, 16, 1, len(strip)),
                (65001, 7, len(about), start + len(strip)),
            ]
            tags += [(65007 + i, 3, 1, width) for i, width in enumerate(widths or ())]
            here = out.tell()
            out.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8))
            out.seek(link)
            out.write(struct.pack("<Q", here))
            link = here + 8 + 20 * len(tags)
            out.seek(0, 2)
