"""The embedded benchmark: seeded scenes, written in the official layouts of V*, HR-Bench and POPE.

    speceyes benchmark                  write data/demo/benchmark and data/demo/validation
    speceyes benchmark --accept         the same, and record the checksums as the right ones

The same seed and the same package versions give the same bytes. Nothing is shared with training: scenes are drawn from
string seeds while training uses integers, and the backgrounds come from a bank with another seed.

The layouts have no place for the kind of question and for the place and size of the scene's window. These are in
`difficulty.csv`, for the analysis only. No model and no gate reads it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..errors import DataError, UserError, nearest
from ..judging.stage import DIFFICULTY_FILE
from ..params import PrepareParams
from ..paths import repo_root, resolve
from ..runs.provenance import file_hash, usable_cores
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS
from . import scenes
from .scenes import HARD_W, SHAPES, W_MAX, W_MIN, Question, Scene

GENERATOR_VERSION = 2  # raise it when the same seed gives other data
# Samples per V* split, questions per HR split (x4), POPE pictures (x2). The benchmark has 60 samples a split. The
# validation set has twice as many, because a threshold that costs nothing on it balances a few gains and losses.
SIZES = {
    "benchmark": {"vstar": 60, "hr": 15, "pope": 30},
    "validation": {"vstar": 120, "hr": 32, "pope": 60},
}
ORDERS = 4  # cyclic option orders of each HR-Bench question
# Share of pictures whose window is at least HARD_W wide, so that a 96 px view shows it reliably. The mixes follow
# the real benchmarks: POPE asks about whole objects, V* about small ones, HR-Bench 8K about the smallest. They
# were set once, before any model was run on this data, and must not be tuned on results.
EASY_SHARE = {
    "vstar/direct_attributes": 0.60,
    "vstar/relative_position": 0.60,
    "hr/hr_bench_4k": 0.68,
    "hr/hr_bench_8k": 0.55,
    "pope": 0.78,
}
KINDS = {  # kinds of questions, in turn
    "vstar/direct_attributes": ("color", "shape"),
    "vstar/relative_position": ("side", "place"),
    "hr/hr_bench_4k": ("color", "place", "shape", "place"),
    "hr/hr_bench_8k": ("color", "place", "shape", "place"),
}
HR_SIDE_PX = {"hr_bench_4k": 1008, "hr_bench_8k": 1408}  # the originals have 4,032 and 7,680 px
SMALL_SIDE_PX = (640, 768)  # V* and POPE, drawn from this range
JPEG_QUALITY = {"vstar": 90, "hr": 85, "pope": 90}
# Which shapes occur together in POPE's pictures, and how often. Circles and stars are frequent but never together. The
# rarer triangle occurs with both. So the popular absent object is not the adversarial one.
HABITS = {
    ("circle", "square"): 10,
    ("circle", "square", "triangle"): 3,
    ("circle", "triangle"): 2,
    ("star", "cross"): 9,
    ("star", "cross", "triangle"): 3,
    ("star", "circle"): 1,
}
Progress = Callable[[int, int, str], None]


# ------------------------------------------------------------------------------------------------- scenes
@dataclass(frozen=True)
class _Picture:
    """One scene, the generator of its texture, and its side in pixels."""

    name: str
    scene: Scene
    rng: random.Random
    side_px: int

    def jpeg(self, grounds: Sequence[Image.Image], quality: int) -> bytes:
        image = scenes.render(self.scene, self.rng, self.side_px, grounds)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()


def _easy(task: str, count: int, seed: int) -> list[bool]:
    """For each of `count` pictures whether it is easy: exactly the stated share, in random order."""
    n_easy = round(EASY_SHARE[task] * count)
    mask = [True] * n_easy + [False] * (count - n_easy)
    random.Random(f"{seed}/{task}/easy").shuffle(mask)
    return mask


def _window(easy: bool) -> tuple[float, float]:
    return (HARD_W, W_MAX) if easy else (W_MIN, HARD_W)


def _with_questions(
    task: str, count: int, seed: int, side_px: int | None = None
) -> Iterator[tuple[_Picture, Question]]:
    """`count` scenes of a task, each with a question; the kinds of questions alternate."""
    for i, easy in enumerate(_easy(task, count, seed)):
        rng = random.Random(f"{seed}/{task}/{i}")
        kind = KINDS[task][i % len(KINDS[task])]
        n_objects = 2 if kind in ("side", "place") else None
        scene = scenes.sample_scene(rng, *_window(easy), n_objects=n_objects)
        while not scenes.admits(scene, kind):
            scene = scenes.sample_scene(rng, *_window(easy), n_objects=n_objects)
        question = scenes.ask(scene, rng, kind)
        yield _Picture(f"scene_{i:03d}", scene, rng, side_px or rng.randint(*SMALL_SIDE_PX)), question


# ---------------------------------------------------------------------------------------------- the layouts
class _Writer:
    """Writes the benchmark folders one by one, and collects the rows of `difficulty.csv`.

    `threads` draw the pictures. Pillow and numpy release the interpreter while they work.
    """

    def __init__(
        self,
        root: Path,
        seed: int,
        sizes: Mapping[str, int],
        threads: ThreadPoolExecutor,
        progress: Progress,
    ) -> None:
        self.root, self.seed, self.sizes, self.threads = root, seed, sizes, threads
        self.grounds = scenes.bank(bank_seed(seed), count=24)
        self.rows: list[tuple[str, str, Scene]] = []  # sample id, kind of question, scene
        self.done, self.total = 0, _pictures(sizes)
        self.progress = progress

    def _jpegs(self, pictures: Sequence[_Picture], benchmark: str) -> Iterator[bytes]:
        """The pictures as files, in their order."""
        quality = JPEG_QUALITY[benchmark]
        for data in self.threads.map(lambda picture: picture.jpeg(self.grounds, quality), pictures):
            self.done += 1
            self.progress(self.done, self.total, "pictures")
            yield data

    def vstar(self, split: str) -> None:
        folder = self.root / "vstar" / split
        folder.mkdir(parents=True)
        task = f"vstar/{split}"
        pictures, questions = zip(*_with_questions(task, self.sizes["vstar"], self.seed), strict=True)
        jpegs = self._jpegs(pictures, "vstar")
        for picture, question, jpeg in zip(pictures, questions, jpegs, strict=True):
            targets = [o for s in question.target_shapes for o in picture.scene.objects if o.shape == s]
            entry = {
                "target_object": [o.shape for o in targets],
                "bbox": [_box_px(scenes.object_box(o), picture.side_px) for o in targets],
                "question": question.text,
                # as in the original, the right option comes first: the position bias is part of the benchmark
                "options": [question.answer, *(o for o in question.options if o != question.answer)],
            }
            (folder / f"{picture.name}.jpg").write_bytes(jpeg)
            (folder / f"{picture.name}.json").write_text(json.dumps(entry), "utf-8")
            self.rows.append((f"{task}/{picture.name}", question.kind, picture.scene))

    def hr(self, split: str) -> None:
        folder = self.root / "hr"
        folder.mkdir(exist_ok=True)
        task = f"hr/{split}"
        with (folder / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            columns = ["index", "question", "answer", "category", *"ABCD", "cycle_category", "image"]
            file.write("\t".join(columns) + "\n")
            pictures, questions = zip(
                *_with_questions(task, self.sizes["hr"], self.seed, HR_SIDE_PX[split]), strict=True
            )
            jpegs = self._jpegs(pictures, "hr")
            for i, (picture, question, jpeg) in enumerate(zip(pictures, questions, jpegs, strict=True)):
                image = base64.b64encode(jpeg).decode()
                category = "cross" if question.kind == "place" else "single"
                for order in range(ORDERS):
                    options = question.options[order:] + question.options[:order]
                    answer = LETTERS[options.index(question.answer)]
                    index = i * ORDERS + order
                    cells = [str(index), question.text, answer, category, *options, str(order), image]
                    file.write("\t".join(cells) + "\n")
                    self.rows.append((f"{task}/{index}", question.kind, picture.scene))

    def pope(self) -> None:
        count, seed = self.sizes["pope"], self.seed
        rng = random.Random(f"{seed}/pope")
        habits = rng.choices(list(HABITS), weights=list(HABITS.values()), k=count)
        pictures = []
        for i, (shapes, easy) in enumerate(zip(habits, _easy("pope", count, seed), strict=True)):
            scene_rng = random.Random(f"{seed}/pope/{i}")
            scene = scenes.sample_scene(scene_rng, *_window(easy), shapes=shapes)
            side_px = scene_rng.randint(*SMALL_SIDE_PX)
            pictures.append(_Picture(f"scene_{i:03d}", scene, scene_rng, side_px))
        present = [rng.choice(shapes) for shapes in habits]
        jpegs = list(self._jpegs(pictures, "pope"))
        absent = absent_objects(habits, rng)
        for split in BENCHMARKS["pope"].splits:
            rows = []
            for picture, jpeg, *shapes in zip(pictures, jpegs, present, absent[split], strict=True):
                for shape in shapes:
                    question = scenes.exist_question(picture.scene, shape)
                    number = len(rows)
                    rows.append(
                        {
                            "id": str(number),
                            "question_id": str(number + 1),
                            "question": question.text,
                            "answer": question.answer,
                            "image_source": picture.name,
                            "category": split,
                            "image": {"bytes": jpeg, "path": f"{picture.name}.jpg"},
                        }
                    )
                    self.rows.append((f"pope/{split}/{number + 1}", question.kind, picture.scene))
            self._parquet(self.root / "pope" / "Full" / f"{split}-00000-of-00001.parquet", rows)

    def _parquet(self, path: Path, rows: list[dict]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)

    def difficulty_csv(self) -> None:
        with (self.root / DIFFICULTY_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", *SceneRow._fields])
            for sample_id, kind, scene in self.rows:
                writer.writerow([sample_id, kind, *(f"{v:.4f}" for v in (scene.w, scene.x0, scene.y0))])


def absent_objects(
    present: Sequence[Sequence[str]], rng: random.Random, vocabulary: Sequence[str] = SHAPES
) -> dict[str, list[str]]:
    """One absent object per picture and POPE split, by POPE's definitions (Li et al. 2023, section 3).

    present: the objects of each picture. random: any absent object. popular: the absent object that occurs in
    most pictures of the data set. adversarial: the absent object that occurs most often together with the
    objects present. Ties go to the earlier one in the vocabulary.
    """
    frequency = Counter(o for objects in present for o in objects)
    together = Counter(pair for objects in present for pair in permutations(objects, 2))
    by_split: dict[str, list[str]] = {"adversarial": [], "popular": [], "random": []}
    for objects in present:
        absent = [o for o in vocabulary if o not in objects]
        by_split["random"].append(rng.choice(absent))
        by_split["popular"].append(max(absent, key=frequency.__getitem__))
        meetings = {o: sum(together[o, p] for p in objects) for o in absent}
        by_split["adversarial"].append(max(absent, key=meetings.__getitem__))
    return by_split


def _box_px(box: Sequence[float], side_px: int) -> list[int]:
    """Fractions (x1, y1, x2, y2) -> V*'s [x, y, width, height] in whole pixels around the object."""
    x1, y1 = (math.floor(v * side_px) for v in box[:2])
    x2, y2 = (math.ceil(v * side_px) for v in box[2:])
    return [x1, y1, x2 - x1, y2 - y1]


def bank_seed(seed: int) -> int:
    """Seed of the backgrounds of a benchmark, far from that of the training backgrounds."""
    return 1_000_000 + seed


# ------------------------------------------------------------------------------------------------ the folder
MANIFEST = "generated.json"


def generate(
    root: str | Path, seed: int, sizes: Mapping[str, int] | None = None, progress: Progress | None = None
) -> dict:
    """Write the embedded benchmark into `root` and return its manifest {generator, seed, sizes, files: sha256}.

    sizes: any of SIZES["benchmark"], which is the default. Nothing is written if `root` already holds this data.
    Everything is written beside `root` and moved there when complete, so nothing looks finished after an
    interruption.

    Raises:
        UserError: a negative seed, an unknown or non-positive size, or a folder with other data.
    """
    known = SIZES["benchmark"]
    root, sizes = Path(root), {**known, **(sizes or {})}
    for name, size in sizes.items():
        if name not in known:
            raise UserError(
                f"sizes: unknown name {name!r}{nearest(name, known)}; known are {', '.join(known)}"
            )
        if size < 1:
            raise UserError(f"sizes: {name} is {size}, expected at least 1")
    if seed < 0:
        raise UserError(f"seed is {seed}, expected 0 or more")
    wanted = {"generator": GENERATOR_VERSION, "seed": seed, "sizes": sizes}
    manifest = read_manifest(root)
    if manifest is None and root.is_dir() and any(root.iterdir()):
        raise UserError(
            f"{root}: holds data that this generator did not write; nothing was touched. "
            "Name an empty folder, or check the data instead of generating it"
        )
    progress = progress or (lambda done, total, text: None)
    total = _pictures(sizes)
    if manifest and {k: manifest.get(k) for k in wanted} == wanted and not damaged(root):
        progress(total, total, "pictures")
        return manifest
    progress(0, total, "pictures")
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ThreadPoolExecutor(usable_cores()) as threads:
        writer = _Writer(partial, seed, sizes, threads, progress)
        for split in BENCHMARKS["vstar"].splits:
            writer.vstar(split)
        for split in BENCHMARKS["hr"].splits:
            writer.hr(split)
        writer.pope()
    writer.difficulty_csv()
    manifest = wanted | {"files": _hashes(partial)}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    if root.exists():
        shutil.rmtree(root)
    os.replace(partial, root)
    return manifest


def _pictures(sizes: Mapping[str, int]) -> int:
    return 2 * sizes["vstar"] + 2 * sizes["hr"] + sizes["pope"]


def read_manifest(root: str | Path) -> dict | None:
    """The manifest that `generate` wrote for the data in `root`; None without one."""
    try:
        return json.loads((Path(root) / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def damaged(root: str | Path) -> list[str]:
    """Files of a generated folder that are missing or have changed."""
    root = Path(root)
    manifest = read_manifest(root)
    if manifest is None:
        raise DataError(
            f"{root / MANIFEST}: missing; this folder was not written by the generator, or not finished"
        )
    return _differing(manifest["files"], root)


class SceneRow(NamedTuple):
    """The row of a sample in `difficulty.csv`: kind of question, side and upper left corner of the scene's window.

    w, x0, y0 are fractions of the picture's side. A window with w < HARD_W is hard to read in a 96 px view.
    """

    kind: str
    w: float
    x0: float
    y0: float


def scene_rows(root: str | Path) -> dict[str, SceneRow]:
    """Sample id -> its scene. Empty for data without `difficulty.csv`, hence for every real benchmark."""
    path = Path(root) / DIFFICULTY_FILE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return {r["id"]: SceneRow(r["kind"], *(float(r[c]) for c in ("w", "x0", "y0"))) for r in rows}


# --------------------------------------------------------------------------------------- committed checksums
@dataclass(frozen=True)
class Comparison:
    """Comparison of generated data with the committed checksums. `note` explains it in one sentence."""

    comparable: bool
    differing: tuple[str, ...]
    note: str

    @property
    def identical(self) -> bool:
        """True if every committed file has the committed checksum."""
        return self.comparable and not self.differing


def compare(root: str | Path, name: str) -> Comparison:
    """Whether the data in `root` equals, byte for byte, the data behind the committed results.

    name: "benchmark" or "validation". Other data is usable, but figures may differ from the committed ones.
    """
    committed = json.loads(checksums_file().read_text("utf-8"))
    expected, manifest = committed[name], read_manifest(root)
    if manifest is None or any(manifest.get(k) != expected[k] for k in ("generator", "seed", "sizes")):
        return Comparison(
            False, (), f"{name}: not the default seed and sizes, so there is nothing to compare with"
        )
    differing = tuple(_differing(expected["files"], Path(root)))
    if not differing:
        note = f"{name}: all {len(expected['files'])} files are identical to the committed checksums"
        return Comparison(True, (), note)
    before, now = (
        ", ".join(f"{name} {number}" for name, number in packages.items())
        for packages in (committed["packages"], packages_in_use())
    )
    return Comparison(
        True,
        differing,
        f"{name}: {len(differing)} of {len(expected['files'])} files differ from the committed checksums "
        f"(first: {differing[0]}). Those were made with {before}; here are {now}. The data is usable, but "
        "figures may differ a little from the committed ones",
    )


def checksums_file() -> Path:
    """The committed checksums of the embedded data."""
    return repo_root() / "data" / "demo" / "checksums.json"


def packages_in_use() -> dict[str, str]:
    """Versions of the packages that decide the bytes of the data."""
    return {name: version(name) for name in ("numpy", "pillow", "pyarrow")}


def _hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(root).as_posix(): file_hash(p) for p in files}


def _differing(expected: Mapping[str, str], root: Path) -> list[str]:
    return [
        name
        for name, digest in expected.items()
        if not (root / name).is_file() or file_hash(root / name) != digest
    ]


def write_embedded_sets(accept: bool = False) -> list[str]:
    """Write the embedded benchmark and the validation set; returns one line per set: how it compares.

    Args:
        accept: record the checksums of what was written as the right ones.
    """
    p = PrepareParams()
    sets = {"benchmark": (p.data_root, p.seed), "validation": (p.validation_root, p.validation_seed)}
    manifests = {name: generate(resolve(root), seed, SIZES[name]) for name, (root, seed) in sets.items()}
    if accept:
        committed = {"packages": packages_in_use()} | manifests
        checksums_file().write_text(json.dumps(committed, indent=1) + "\n", "utf-8")
    return [compare(resolve(root), name).note for name, (root, _) in sets.items()]
