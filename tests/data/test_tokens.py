from __future__ import annotations

import numpy as np
import pytest

from pipezoo.data.tokens import batches


@pytest.fixture
def file(tmp_path):
    def write(count: int, dtype: str = "uint16", header: bytes = b"") -> str:
        path = tmp_path / "tokens.bin"
        path.write_bytes(header + np.arange(count).astype(dtype).tobytes())
        return str(path)

    return write


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_rows_are_windows_side_by_side_and_targets_one_token_later(file, dtype):
    batch = batches(3, 0, file(17, dtype), context=5, dtype=dtype, shuffle=False)(0)
    assert batch.args[0].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert batch.target.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]


def test_a_token_above_the_range_of_int16_is_itself(file):
    batch = batches(1, 0, file(65536), context=65535, shuffle=False)(0)
    assert batch.target[0, -1] == 65535


def test_a_header_is_skipped(file):
    assert batches(1, 0, file(9, header=b"1234"), context=8, skip=4, shuffle=False)(0).args[0][0, 0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"path": "nowhere.bin"}, "path=nowhere.bin: no such file"),
        ({"path": None}, "path: is needed"),
        ({"dtype": "uint32", "count": 17}, r"dtype=uint32: .* has 34 bytes of tokens, no multiple of 4"),
        ({"dtype": "float32"}, "dtype=float32"),
        ({"context": 99}, r"context=99: .* has 17 tokens"),
        ({"batch_size": 4}, "batch_size=4: a batch has 4 rows, and the data have 3; valid: 1..3"),
        ({"context": 0}, "context=0"),
    ],
)
def test_what_does_not_fit_is_refused(file, words, why):
    own = {"path": file(words.pop("count", 17)), "batch_size": 3, "context": 5, **words}
    with pytest.raises(ValueError, match=why):
        batches(seed=0, **own)
