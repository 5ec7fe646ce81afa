"""Celebrity faces from the user's disk, decoded one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.data.base.data_source import DataSource, Items
from pyro_genmodels.data.base.items import Tuples
from pyro_genmodels.data.base.pixels import check_bits
from pyro_genmodels.data.datasets.vision import open_torchvision
from pyro_genmodels.data.images.decoding import Decoding
from pyro_genmodels.data.images.image_files import ImageFiles


class CelebA(DataSource):
    """Celebrity faces, the official split: 162,770 / 19,867 / 19,962.

    From the aligned 178 x 218 pictures the central square of ``crop`` pixels is cut and scaled
    to ``size``, as is the custom.

    Args:
        root: Folder above torchvision's ``celeba``.
        download: Whether to fetch what is missing.
        size: Height and width to scale to.
        crop: Side of the central square, at most 178.
        num_bits: Bits kept a channel, from 1 to 8.

    Raises:
        ValueError: If the files are not there or damaged, or an argument is out of range.
        ImportError: If torchvision is not installed.

    References:
        Liu et al. (2015), Deep Learning Face Attributes in the Wild.
    """

    path_argument: ClassVar[str | None] = "root"

    def __init__(
        self,
        root: str,
        *,
        download: bool = False,
        size: int = 64,
        crop: int = 148,
        num_bits: int = 8,
    ) -> None:
        check_bits(num_bits)
        check_positive(size=size)
        check(1 <= crop <= 178, "crop", "lie between 1 and 178", crop)
        parts: list[Items] = []
        for part in ("train", "valid", "test"):
            faces = open_torchvision("CelebA", root, download=download, split=part)
            folder = Path(root).expanduser() / faces.base_folder / "img_align_celeba"
            paths = [folder / name for name in faces.filename]
            images = ImageFiles(paths, None, Decoding(size, crop, num_bits))
            parts.append(Tuples(images, "root", num_levels=2**num_bits))
        super().__init__(*parts, num_levels=2**num_bits)
