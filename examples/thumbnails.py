"""Thumbnails of photographs, with the executor in the place of a ProcessPoolExecutor.

    python examples/thumbnails.py

The photographs are cut from the two that scikit-learn brings along. Jobs pass paths, not pixels: what is
large stays in files.
"""

import tempfile
from pathlib import Path

from PIL import Image, ImageStat
from sklearn.datasets import load_sample_images

from workerbee import WorkerbeeExecutor

SIZE = 96


def make_photographs(directory):
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        photograph = Image.fromarray(pixels)
        for n in range(20):
            left, top = 15 * n, 9 * n
            photograph.crop((left, top, left + 320, top + 240)).save(directory / f"{name}_{n:02}.jpg", quality=95)


def make_thumbnail(path):
    with Image.open(path) as photograph:
        photograph.thumbnail((SIZE, SIZE))
        thumbnail = path.with_suffix(".png")
        photograph.save(thumbnail)
    return thumbnail


def mean_color(path):
    with Image.open(path) as image:
        return ImageStat.Stat(image).mean


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_photographs(directory)
        photographs = sorted(directory.glob("*.jpg"))
        with WorkerbeeExecutor() as executor:
            thumbnails = list(executor.map(make_thumbnail, photographs, chunksize=5))
        print(f"{len(thumbnails)} thumbnails, the first is {thumbnails[0].name}")

        assert len(thumbnails) == 40
        for photograph, thumbnail in zip(photographs, thumbnails, strict=True):
            assert Image.open(thumbnail).size == (SIZE, SIZE * 3 // 4)
            pairs = zip(mean_color(photograph), mean_color(thumbnail), strict=True)
            assert all(abs(before - after) < 3 for before, after in pairs)
        print("each has the colors of its photograph")
