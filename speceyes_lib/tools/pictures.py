"""vision_analyze, vision_ocr and image_zoom_in_tool: what tools can find out about a picture of the task."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from ..errors import DataError
from ..tasks.images import map_box
from .declared import Arguments, Effect, Tool, Workspace
from .glyphs import read_line
from .waits import waiting
from .worker import ToolError

VISION = "vision"  # resource: (path of a picture, question) -> answer
OCR_PROMPT = "Copy the text of this picture as markdown. Reply with the text alone."
DEFAULT_QUESTION = "Describe this picture."
MAX_PIXELS = 100_000_000
MAX_CROP_PX = 512  # longer side of the picture that a zoom returns
MAX_CROP_CHARS = 45_000

Vision = Callable[[Path, str], str]


class AnalyzeArguments(Arguments):
    """Arguments of vision_analyze."""

    image_path: str = Field(
        min_length=1, max_length=500, description="name of a picture in the task's folder"
    )
    question: str = Field(DEFAULT_QUESTION, min_length=1, max_length=2000, description="what to find out")


class OcrArguments(Arguments):
    """Arguments of vision_ocr."""

    image_path: str = Field(
        min_length=1, max_length=500, description="name of a picture in the task's folder"
    )


class ZoomArguments(Arguments):
    """Arguments of image_zoom_in_tool."""

    image_path: str = Field(
        min_length=1, max_length=500, description="name of a picture in the task's folder"
    )
    bbox_2d: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the picture")
    label: str = Field("", max_length=200, description="what is there")


def open_picture(name: str, workspace: Workspace) -> Image.Image:
    """A picture of the task's folder, decoded.

    Raises:
        ToolError: there is no such picture, it is broken or too large.
    """
    path = workspace.path(name)
    if not path.is_file():
        raise ToolError(f"There is no picture {name} in the task's folder.")
    if path.stat().st_size == 0:
        raise ToolError(f"{name} is empty.")
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ToolError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels.")
            return picture.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ToolError(f"{name} is no picture that can be read; use file_read for other files.") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ToolError(f"{name} is a broken picture: {error}.") from None


def analyze(arguments: AnalyzeArguments, workspace: Workspace) -> str:
    """The answer of the configured vision model to a question about a picture.

    Raises:
        ToolError: the picture cannot be opened, or no model is configured.
    """
    open_picture(arguments.image_path, workspace)
    return _vision(workspace, "vision_analyze")(workspace.path(arguments.image_path), arguments.question)


def recognise(arguments: OcrArguments, workspace: Workspace) -> str:
    """The text of a picture: read by its letter shapes, or by the configured vision model where those do not fit.

    Raises:
        ToolError: the picture cannot be opened, or holds no text that can be read.
    """
    text = read_line(open_picture(arguments.image_path, workspace))
    if text:
        return text
    if workspace.resources.get(VISION) is None:
        raise ToolError(
            f"{arguments.image_path} shows no text in the letters that can be read without a vision model."
        )
    return _vision(workspace, "vision_ocr")(workspace.path(arguments.image_path), OCR_PROMPT)


def zoom(arguments: ZoomArguments, workspace: Workspace) -> str:
    """The enlarged part of a picture as a data URL.

    Raises:
        ToolError: the picture cannot be opened, or the box marks nothing in it.
    """
    picture = open_picture(arguments.image_path, workspace)
    try:
        box = map_box(arguments.bbox_2d, picture.size, picture.size, 1)
    except DataError as error:
        raise ToolError(f"bbox_2d: {error}.") from None
    crop, side = picture.crop(box), MAX_CROP_PX
    scale = side / max(crop.size)
    while True:
        resized = crop.resize([max(1, round(s * scale)) for s in crop.size], Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        resized.save(buffer, "JPEG", quality=85)
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(url) <= MAX_CROP_CHARS:
            return url
        scale *= 0.8


def _vision(workspace: Workspace, name: str) -> Vision:
    vision = workspace.resources.get(VISION)
    if vision is None:
        raise ToolError(f"{name} needs a model that sees pictures, and none is configured here.")
    return vision


def _decode(workspace: Workspace, arguments: AnalyzeArguments | OcrArguments | None) -> None:
    """Read the picture into the system's file cache, and load the modules that decode it."""
    if arguments is not None:
        open_picture(arguments.image_path, workspace)


VISION_ANALYZE = Tool(
    name="vision_analyze",
    description="Ask a question about a picture.",
    arguments=AnalyzeArguments,
    effect=Effect.repeatable,
    run=analyze,
    warm_up=_decode,
    timeout_s=120.0,
    paths=("image_path",),
    wait_s=waiting,
)
VISION_OCR = Tool(
    name="vision_ocr",
    description="Read the text of a picture.",
    arguments=OcrArguments,
    effect=Effect.repeatable,
    run=recognise,
    warm_up=_decode,
    timeout_s=120.0,
    paths=("image_path",),
    wait_s=waiting,
)
IMAGE_ZOOM = Tool(
    name="image_zoom_in_tool",
    description="Enlarge a part of a picture.",
    arguments=ZoomArguments,
    effect=Effect.repeatable,
    run=zoom,
    warm_up=_decode,
    paths=("image_path",),
)
