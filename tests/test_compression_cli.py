"""``compress`` and ``decompress``: files come back, and mistakes leave every file as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("constriction", reason="comes with the compression extra")

from pyro_genmodels import compression, models, training
from pyro_genmodels.cli import main
from tests.small_runs import SHAPE, train_runs
from tests.test_cli_mistakes import contents, refuse


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled lossless run and one of codes, on sixty images of four levels."""
    folder = tmp_path_factory.mktemp("runs")
    train_runs(
        folder,
        {
            "vqvae": models.VQVAE(
                SHAPE, num_levels=4, codebook=8, network=models.VQVAENetwork(hidden_channels=4)
            )
        },
    )
    return folder


def the_test_images(runs: Path) -> torch.Tensor:
    test: Any = training.load_source(runs / "pixelcnn").test
    return torch.stack([test[i][0] for i in range(len(test))])


@pytest.mark.parametrize("output", ["x.npy", "x.pt", "pictures"])
def test_images_come_back(
    output: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, back = str(runs / "pixelcnn"), str(tmp_path / "x.pgm"), str(tmp_path / output)
    assert main(["compress", run, "--output", file]) == 0
    shown = capsys.readouterr().out
    size = Path(file).stat().st_size
    assert f"{8 * size:,} bits in {size:,} bytes" in shown
    assert re.search(r"bits/dim, [\d.]+ times smaller than 2 bits", shown)
    assert re.search(r"-log2 p [\d,.]+ bits; the coder takes", shown)
    assert main(["decompress", run, file, "--labels", "test", "--output", back]) == 0
    assert {f.name for f in tmp_path.iterdir()} == {"x.pgm", output}
    images = the_test_images(runs).long()
    if output == "x.npy":
        found = np.load(back)
        assert found.dtype == np.uint8
        assert torch.equal(torch.from_numpy(found).long(), images)
    elif output == "x.pt":
        assert torch.equal(torch.load(back), images)
    # What was written is an input like any other.
    again = str(tmp_path / "again.pgm")
    words = ["--input", back, "--labels", "test", "--output", again]
    assert main(["compress", run, *words]) == 0
    assert Path(again).read_bytes() == Path(file).read_bytes()


def test_codes_come_back_as_images(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, back = str(runs / "vqvae"), str(tmp_path / "x.pgm"), str(tmp_path / "x.npy")
    assert main(["compress", run, "--output", file, "--num", "5"]) == 0
    assert "-log2 p of their codes 15.0 bits" in capsys.readouterr().out
    assert main(["decompress", run, file, "--output", back]) == 0
    model: Any = training.load(run).eval()
    expected = model.decode_codes(model.encode_codes(the_test_images(runs)[:5]))
    assert np.array_equal(np.load(back), expected.round().clamp(0, 3).numpy())


@pytest.mark.parametrize("dtype", ["uint16", "uint64", ">i4", ">f8", "bool"])
def test_arrays_of_any_type_of_number(dtype: str, runs: Path, tmp_path: Path) -> None:
    images = the_test_images(runs).clamp(max=1).numpy()
    np.save(tmp_path / "x.npy", images.astype(dtype))
    words = ["compress", str(runs / "vqvae"), "--input", str(tmp_path / "x.npy")]
    assert main([*words, "--output", str(tmp_path / "x.pgm")]) == 0


def test_mistakes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, vqvae, file = str(runs / "pixelcnn"), str(runs / "vqvae"), str(tmp_path / "x.pgm")
    assert main(["compress", run, "--output", file, "--num", "4"]) == 0
    np.save(tmp_path / "five.npy", np.full((2, *SHAPE), 5))
    (tmp_path / "torn.npy").write_bytes(b"torn")
    odd = {"none": (0, *SHAPE), "one": SHAPE, "turned": (2, 4, 4, 1), "number": ()}
    for name, shape in odd.items():
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, dtype=int))
    np.save(tmp_path / "complex.npy", np.zeros((2, *SHAPE), dtype=complex))
    one = compression.compress_images(training.load(run), torch.zeros(SHAPE), torch.tensor(1))
    (tmp_path / "one.pgm").write_bytes(one)
    whole = Path(file).read_bytes()
    Path(tmp_path / "cut.pgm").write_bytes(whole[:-4])
    before = contents(tmp_path)
    back, labels = ["--output", str(tmp_path / "y.npy")], ["--labels", "test"]
    out = ["--output", str(tmp_path / "y.pgm")]
    here = str(tmp_path)
    for words, message in [
        (["decompress", run, file, *back], "`labels` must be given"),
        (["decompress", run, file, "--labels", "train", *back], "this distribution's context"),
        (["decompress", run, here + "/cut.pgm", *labels, *back], "`data` must be whole"),
        (["decompress", vqvae, file, *back], "must be written with this model"),
        (["decompress", vqvae, file, *labels, *back], "`labels` must be left out"),
        (["decompress", run, here + "/none.pgm", *back], "No such file"),
        (["decompress", run, file, *labels, "--output", file], "`output` must be a file that"),
        (["decompress", run, file, *labels, "--output", here], "`output` must be a new folder"),
        (["compress", run, "--input", here + "/five.npy", *labels, *out], "`x` must hold"),
        (["compress", run, "--input", here + "/torn.npy", *labels, *out], "`input` must be an"),
        (["compress", run, "--input", here + "/x.pgm", *labels, *out], "`input` must be a file"),
        (["compress", run, "--input", here, *labels, *out], "`input` must hold pictures"),
        (["compress", run, "--num", "0", *out], "`num` must be at least 1"),
        *(
            (["compress", run, "--input", f"{here}/{name}.npy", *labels, *out], "`input` must hold")
            for name in (*odd, "complex")
        ),
        (["compress", run, "--labels", here + "/number.npy", *out], "`labels` must be 12 or more"),
        (["compress", run, "--labels", here + "/none.npy", *out], "`labels` must be 12 or more"),
        (["decompress", run, here + "/one.pgm", *labels, *back], "`data` must have leading"),
        (["compress", run, "--output", here + "/no/x.pgm"], "`output` must lie in a folder"),
    ]:
        wrong = ("be given", "be left out", "`output`", "`num`", "`input` must be a file")
        refuse(words, message, capsys, status=2 if any(w in message for w in wrong) else 1)
    assert contents(tmp_path) == before
