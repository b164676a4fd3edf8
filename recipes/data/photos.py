"""Collect clean photographs with permissive licences from git clones.

    python recipes/data/photos.py CLONES -o DIR [--known FOLDER ...]

CLONES is a folder of clones, bare or checked out, each named owner+name, e.g. openstax+osbooks-world-history.
Two sets are written, each as train/*.jpg and index.csv (one line per image, with its licence and credit):

    DIR/photos3   figures of openstax/osbooks-* whose caption names CC BY, CC BY-SA, CC0 or public domain
    DIR/photos4   images of Wikimedia Commons, Flickr, Geograph and Mapillary whose licence is named in a credits file

A photograph is downsampled by the smallest factor at which it is sharp and free of visible noise; one without such
a factor is left out, as are drawings, maps, scans, collages, black-and-white images and duplicates, also of images in
the folders given with --known. Check the result by eye.
Needs numpy and Pillow only.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from clones import Clone
from licences import FORBIDDEN, find_licence
from PIL import Image

FACTORS = (1.3, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 8)
SHARPNESS = 0.33  # detail of the finest octave against the next; about 0.5 is critically sharp, 0.25 looks upscaled
NOISE = 2.0  # standard deviation in 8-bit steps, in the flattest tenth of the image
QUANTISER = 7.0  # mean luma quantiser of a JPEG source, divided by the factor
LONGEST, SHORTEST = 1280, 192
DUPLICATE_BITS = 32  # maximum distance of duplicates, of the 256 bits of the difference hash
COLUMNS = [
    "file", "repository", "original_path", "licence",
    "width", "height", "noise_sigma_8bit", "sharpness", "downsampling",
    "source_width", "source_height", "source_luma_quantiser", "commit", "credit",
]  # fmt: skip

# Credits in the repositories of photos4: the file, the template of an image's path ("key" is the key of an entry in
# a JSON object), and the fields of licence and author.
CREDITS = [
    ("iqbal-jewel/wildnatureusa-social", "photos/credits.json", "photos/{file}", "licence", "author"),
    (
        "rshood2000-cyber/dubai-survey-images",
        "attribution.csv",
        "images/{public_id}.jpg",
        "license",
        "creator_username",
    ),
    ("cocacola099/tripcamps-trekker", "src/data/attributions.json", "public{src}", "license", "author"),
    ("zscore/flat-cats", "images/credits.json", "images/{file}", "license", "creator"),
    ("mk-162/Adventure-Site", "public/images/attributions.json", "public/{key}", "license", "creator"),
    ("mk-162/Adventure-Site", "public/images/attributions.json", "public/{key}", "licence", "photographer"),
]
COCO = ["developer0hye/COCO128", "Obmutescence/COCO-MINI"]
COCO_LICENCES = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 8: "public domain"}  # 8: work of the United States government

NO_PHOTOGRAPH = re.compile(
    r"\b(maps?|graphs?|charts?|diagrams?|paint(ing|ings|ed|er)|fresco|drawings?|drawn|illustrat(ion|ions|ed)|engravings?"
    r"|woodcuts?|lithographs?|posters?|cartoons?|comic|manuscripts?|sketch(es)?|depict(s|ion|ing)|screenshots?|logos?"
    r"|infographic|flowchart|stamp|scroll|black[ -]and[ -]white|sepia|engraved|etching|print shows|timeline"
    r"|cover of|advertisement|newspaper|document|micrograph|x-ray|scan|rendering|artist|miniature|tapestry|codex)\b",
    re.I,
)
COLLAGE = re.compile(
    r"\([a-d]\)|\b(credit|image|photo) [a-d]\b|\b(top|bottom|upper|lower) (left|right)|\((left|right|top|bottom)"
    r"|credit (left|right|top)|collage|composite|(two|three|four|six|series of) (photo|image|picture)",
    re.I,
)


class Candidate(NamedTuple):
    """An image with its licence and credit."""

    path: str
    licence: str
    credit: str


def find_book_figures(clone: Clone) -> Iterator[Candidate]:
    """Yield the figures of a book that are single photographs with a permissive licence."""
    for module in clone.files:
        if not re.fullmatch(r"modules/[^/]+/index\.cnxml", module):
            continue
        tree = ElementTree.fromstring(clone.read(module) or b"<document/>")
        for figure in tree.iter("{http://cnx.rice.edu/cnxml}figure"):
            images = list(figure.iter("{http://cnx.rice.edu/cnxml}image"))
            caption = figure.find("{http://cnx.rice.edu/cnxml}caption")
            if len(images) != 1 or caption is None:
                continue
            text = " ".join("".join(caption.itertext()).split())
            description = text + " " + " ".join(media.get("alt", "") for media in figure.iter() if media.get("alt"))
            licence = find_licence(text)
            is_collage = COLLAGE.search(description) or len(re.findall(r"\bcredit\b", text, re.I)) > 1
            if licence and not is_collage and not NO_PHOTOGRAPH.search(description):
                credit = re.search(r"\bcredit\b.*", text, re.I)
                yield Candidate("media/" + Path(images[0].get("src")).name, licence, credit[0] if credit else text)


def find_credited_images(clone: Clone) -> Iterator[Candidate]:
    """Yield the images with a permissive licence in a credits file."""
    for repository, source, path, licence_field, author_field in CREDITS:
        content = clone.read(source) if repository == clone.repository else None
        if content is None:
            continue
        entries: Any = (
            list(csv.DictReader(io.StringIO(content.decode()))) if source.endswith(".csv") else json.loads(content)
        )
        if isinstance(entries, dict):
            entries = [{"key": key.removeprefix("public/"), **entry} for key, entry in entries.items()]
        for entry in entries:
            licence = find_licence(str(entry.get(licence_field, "")))
            if licence and not FORBIDDEN.search(str(entry)):
                yield Candidate(path.format(**entry), licence, str(entry.get(author_field, "")))
    if clone.repository in COCO:
        for split in ("train2017", "val2017"):
            for entry in json.loads(clone.read(f"annotations/instances_{split}.json"))["images"]:
                if entry["license"] in COCO_LICENCES:
                    yield Candidate(
                        f"{split}/{entry['file_name']}", COCO_LICENCES[entry["license"]], entry["flickr_url"]
                    )


def haar(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the four subbands of one level of the Haar wavelet transform."""
    x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    a, b, c, d = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def measure(image: Image.Image) -> tuple[float, float]:
    """Return sharpness (finest octave against the next) and noise (tenth percentile of local diagonal detail)."""
    coarse, *fine = haar(np.asarray(image.convert("L"), np.float32))
    _, *next_finest = haar(coarse)
    sharpness = np.sqrt(sum((x**2).mean() for x in fine) / (sum((x**2).mean() for x in next_finest) + 1e-9))
    height, width = (size // 16 for size in fine[2].shape)
    blocks = np.abs(fine[2][: height * 16, : width * 16]).reshape(height, 16, width, 16).mean((1, 3))
    return float(sharpness), float(np.percentile(blocks, 10) * 1.2533)  # mean absolute value to sigma


def downsample(image: Image.Image, quantiser: float) -> tuple[Image.Image, float, float, float] | None:
    """Return the image at the smallest factor that makes it clean, with factor, sharpness and noise."""
    least = max(FACTORS[0], max(image.size) / LONGEST, quantiser / QUANTISER)
    for factor in [least, *(factor for factor in FACTORS if factor > least * 1.05)]:
        size = tuple(round(side / factor) for side in image.size)
        if min(size) < SHORTEST:
            return None
        small = image.resize(size, Image.Resampling.LANCZOS)
        sharpness, noise = measure(small)
        if sharpness >= SHARPNESS and noise <= NOISE:
            return small, factor, sharpness, noise
    return None


def looks_like_photograph(image: Image.Image) -> bool:
    """Return whether the colours of an image are those of a photograph."""
    small = image.resize((256, 256), Image.Resampling.NEAREST)
    pixels = np.asarray(small).reshape(-1, 3)
    colours, counts = np.unique(pixels >> 3, axis=0, return_counts=True)
    chroma = np.asarray(small.convert("YCbCr"), np.float32)[..., 1:].std((0, 1)).sum()
    # Grey and sepia scans vary in brightness only, drawings have few colours, charts and cut-outs are mostly white.
    return (
        chroma > 6 and len(colours) > 500 and counts.max() < 0.12 * len(pixels) and (pixels.min(1) > 244).mean() < 0.2
    )


def difference_hash(image: Image.Image) -> np.ndarray:
    """Return 256 bits that are similar for similar images."""
    grey = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BOX), np.int16)
    return (np.diff(grey, axis=1) > 0).ravel()


def collect(clones: list[Clone], candidates: Any, folder: Path, hashes: list[np.ndarray]) -> None:
    """Write the clean photographs among the candidates of clones to a folder.

    Args:
        clones: repositories.
        candidates: function that yields the candidates of a clone.
        folder: output folder.
        hashes: difference hashes of images that are not to be repeated; new ones are appended.
    """
    (folder / "train").mkdir(parents=True, exist_ok=True)
    with open(folder / "index.csv", "w", newline="", buffering=1) as file:
        index = csv.writer(file)
        index.writerow(COLUMNS)
        for clone in clones:
            counts = dict.fromkeys(("candidates", "absent", "no photograph", "not clean", "duplicate", "written"), 0)
            for candidate in {candidate.path: candidate for candidate in candidates(clone)}.values():
                counts["candidates"] += 1
                content = clone.read(candidate.path)
                try:
                    source = Image.open(io.BytesIO(content or b""))
                    tables = getattr(source, "quantization", None)
                    quantiser = float(np.mean(tables[0])) if tables else 0.0
                    image = source.convert("RGB")
                except (OSError, Image.DecompressionBombError):
                    counts["absent"] += 1
                    continue
                if not looks_like_photograph(image):
                    counts["no photograph"] += 1
                    continue
                bits = difference_hash(image)
                if any((bits != other).sum() <= DUPLICATE_BITS for other in hashes):
                    counts["duplicate"] += 1
                    continue
                if (clean := downsample(image, quantiser)) is None:
                    counts["not clean"] += 1
                    continue
                small, factor, sharpness, noise = clean
                counts["written"] += 1
                hashes.append(bits)
                repository = clone.repository.split("/")[1].removeprefix("osbooks-")
                name = (
                    f"train/{repository}-{re.sub('[^a-z0-9]+', '-', Path(candidate.path).stem.lower()).strip('-')}.jpg"
                )
                small.save(folder / name, quality=95, subsampling=0)
                numbers = f"{noise:.2f}", f"{sharpness:.2f}", f"{factor:.4g}", *source.size, f"{quantiser:.1f}"
                facts = name, clone.repository, candidate.path, candidate.licence, *small.size
                index.writerow([*facts, *numbers, clone.commit, candidate.credit[:300]])
            print(clone.repository, counts, flush=True)


def main() -> None:
    """Parse the command line and write both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--known", type=Path, nargs="*", default=[], help="folders of images that are not to be repeated"
    )
    options = parser.parse_args()
    hashes = [difference_hash(Image.open(path)) for known in options.known for path in known.rglob("*.[jp][pn]g")]
    folders = sorted(options.clones.glob("*+*"))
    books = [Clone(folder) for folder in folders if folder.name.startswith("openstax+osbooks-")]
    credited = {repository for repository, *_ in CREDITS} | set(COCO)
    collect(books, find_book_figures, options.output / "photos3", hashes)
    collect(
        [Clone(f) for f in folders if f.name.replace("+", "/", 1) in credited],
        find_credited_images,
        options.output / "photos4",
        hashes,
    )


if __name__ == "__main__":
    main()
