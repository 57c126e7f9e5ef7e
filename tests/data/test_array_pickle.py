"""Pickles of embeddings: every honest form is read, and nothing that a file says reaches beyond its own bytes."""

from __future__ import annotations

import os
import pickle
import pickletools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_cosmos.data.embeddings import read_embedding
from nemo_cosmos.errors import InputError

ARRAY = np.arange(12, dtype=np.float16).reshape(3, 4)
BYTES = ARRAY.tobytes()


class Rebuilt:
    """Pickled as a call, with a state set afterwards where one is given."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


reconstruct = ARRAY.__reduce__()[0]
frombuffer = ARRAY.__reduce_ex__(5)[0]


def array(dtype="f2", shape=(3, 4), data=BYTES, order="<", fortran=False, rest=(None, None, None, -1, -1, 0)):
    kind = Rebuilt(np.dtype, (dtype, False, True), (3, order, *rest))
    return Rebuilt(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, kind, fortran, data))


def with_opcodes(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


HOSTILE = {
    "objects from addresses": [array(dtype="O8", order="|")],
    "objects, little-endian": [array(dtype="O")],
    "void": [array(dtype="V8", order="|", rest=(None, None, None, 8, 1, 0))],
    "fields": [array(rest=(None, ("a",), {"a": (np.dtype("O"), 0)}, 2, 1, 27))],
    "subarray": [array(rest=((np.dtype("f2"), (1 << 40,)), None, None, -1, -1, 0))],
    "integers": [array(dtype="i2")],
    "complex": [array(dtype="c8")],
    "long double": [array(dtype="f16")],
    "big-endian": [array(order=">")],
    "no byte order": [array(order=None)],
    "huge shape": [array(shape=(1 << 40, 1 << 40))],
    "shape that wraps around": [array(shape=(1 << 63, 2))],
    "shape of long numbers": [array(shape=(1 << 10000, 1 << 10000))],
    "negative shape": [array(shape=(-3, -4))],
    "one negative": [array(shape=(-1, 4))],
    "shape of truths": [array(shape=(True, True), data=b"\0\0")],
    "shape of floats": [array(shape=(3.0, 4.0))],
    "shape is a number": [array(shape=12)],
    "many dimensions": [array(shape=(1,) * 100 + (3, 4))],
    "more than its bytes": [array(shape=(4, 4))],
    "fewer than its bytes": [array(shape=(2, 4))],
    "objects as bytes": [array(data=[1, 2, 3])],
    "no bytes": [array(data=None)],
    "buffer beyond its end": [Rebuilt(frombuffer, (b"\0\0", np.dtype("f2"), (1 << 40, 4), "C"))],
    "buffer of objects": [Rebuilt(frombuffer, (b"\0" * 8, np.dtype("O"), (1, 1), "C"))],
    "buffer in another order": [Rebuilt(frombuffer, (ARRAY.tobytes(), np.dtype("f2"), (3, 4), "K"))],
    "buffer without type": [Rebuilt(frombuffer, (ARRAY.tobytes(), "f2", (3, 4), "C"))],
    "another kind of array": [Rebuilt(reconstruct, (np.dtype, (0,), b"b"))],
    "array without state": [Rebuilt(reconstruct, (np.ndarray, (3, 4), b"b"))],
    "type alone": [np.dtype("f2")],
    "class alone": [np.ndarray],
    "array is called": [Rebuilt(np.ndarray, ((1 << 40,), "O"))],
    "text": "text",
    "number": 1 << 1000,
    "two arrays": [ARRAY, ARRAY],
    "list in list": [[ARRAY]],
    "os.system": [Rebuilt(os.system, ("touch made",))],
    "eval": [Rebuilt(eval, ("open('made', 'w')",))],
    "state of a function": [Rebuilt(reconstruct, (np.ndarray, (0,), b"b"), {"shape": (3, 4)})],
}
HOSTILE_BYTES = {
    "empty": b"",
    "only a stop": b".",
    "nothing on the stack": with_opcodes(),
    "memo bomb": with_opcodes(b"N", b"r\xff\xff\xff\xff"),
    "text memo bomb": b"Np99999999999999999999\n.",
    "negative memo": b"Np-1\n.",
    "unknown memo": with_opcodes(b"j\xff\xff\xff\xff"),
    "bytes beyond the file": with_opcodes(b"\x8e" + b"\xff" * 7 + b"\x7f"),
    "frame beyond the file": with_opcodes(b"\x95" + b"\xff" * 8, b"N"),
    "long of negative length": with_opcodes(b"\x8b\xff\xff\xff\xff"),
    "a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "deep lists": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x04)" + b"\x85" * 500_000 + b".",
    "deep key": b"\x80\x04})" + b"\x85" * 500_000 + b"Ns.",
    "list in itself": b"\x80\x04]\x94h\x00a.",
    "doubling lists": b"\x80\x04]" + b"\x94h\x00\x86" * 100_000 + b".",
    "marks without end": b"\x80\x04" + b"(" * 100_000 + b".",
    "pops below the stack": with_opcodes(b"0" * 10),
    "tuple below the stack": with_opcodes(b"\x87"),
    "build on a number": with_opcodes(b"K\x01", b")", b"b"),
    "append to a number": with_opcodes(b"K\x01", b"N", b"a"),
    "call of a number": with_opcodes(b"K\x01", b")", b"R"),
    "persistent": b"Pid\n.",
    "instance": b"(ios\nsystem\n.",
    "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "extension": with_opcodes(b"\x82\x01"),
    "buffer outside": b"\x80\x05\x97.",
    "name with control characters": with_opcodes(b"\x8c\x04\x1b[2J", b"\x8c\x02\n\r", b"\x93"),
    "unknown protocol": b"\x80\xff.",
    "not ascii": b"c\xff\xff\n\xff\n.",
}


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_embedding(path)
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_an_array_that_is_no_plain_one_is_refused(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    message = refused(tmp_path / "bad.pickle", pickle.dumps(HOSTILE[name], protocol))
    assert message.startswith(str(tmp_path / "bad.pickle")) and "\n" not in message
    assert sorted(os.listdir(tmp_path)) == ["bad.pickle"]


@pytest.mark.parametrize("name", HOSTILE_BYTES)
def test_opcodes_that_no_array_needs_are_refused(tmp_path, name):
    message = refused(tmp_path / "bad.pickle", HOSTILE_BYTES[name])
    assert message.startswith(str(tmp_path / "bad.pickle")) and message.isprintable()


@pytest.mark.parametrize("protocol", range(6))
def test_a_file_cut_anywhere_is_refused(tmp_path, protocol):
    content = pickle.dumps([ARRAY], protocol)
    for length in range(len(content)):
        refused(tmp_path / "cut.pickle", content[:length])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bare", [False, True])
def test_float_arrays_in_any_memory_order_are_read(tmp_path, protocol, kind, bare):
    rows = np.random.default_rng(0).standard_normal((6, 5)).astype(kind)
    for value in (rows, np.asfortranarray(rows), rows[::2, ::-1], rows.T):
        for optimize in (bytes, pickletools.optimize):
            content = optimize(pickle.dumps(value if bare else [value], protocol))
            (tmp_path / "a.pickle").write_bytes(content)
            assert torch.equal(read_embedding(tmp_path / "a.pickle"), torch.from_numpy(value.copy()))


def test_python_2_wrote_bytes_as_text(tmp_path):
    values = np.array([[1.0, -2.0]], "<f4")
    content = (
        b"\x80\x02]q\x00cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05R"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + values.tobytes() + b"tba."
    )
    (tmp_path / "a.pickle").write_bytes(content)
    assert torch.equal(read_embedding(tmp_path / "a.pickle"), torch.from_numpy(values))


def test_what_is_read_may_be_written_to(tmp_path):
    (tmp_path / "a.pickle").write_bytes(pickle.dumps([ARRAY]))
    read_embedding(tmp_path / "a.pickle").add_(1)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pickle")
    with pytest.raises(InputError, match=r"a\.pickle is not a file"):
        read_embedding(tmp_path / "a.pickle")


FUZZ_CASES = 4000


def fuzz(folder: Path) -> int:
    """Read pickles with random bytes changed, put in and cut out; returns how many gave an array."""
    chosen = random.Random(11)
    sources = [
        pickle.dumps(value, p) for p in range(6) for value in ([ARRAY], np.asfortranarray(ARRAY), [array("O8")])
    ]
    file, read = folder / "fuzz.pickle", 0
    for _ in range(FUZZ_CASES):
        content = bytearray(chosen.choice(sources))
        for _ in range(chosen.choice((1, 1, 2, 4, 16))):
            place = chosen.randrange(len(content))
            change = chosen.random()
            if change < 0.6:
                content[place] ^= 1 << chosen.randrange(8)
            elif change < 0.8:
                content[place:place] = chosen.randbytes(chosen.randrange(1, 5))
            else:
                del content[place : place + chosen.randrange(1, 5)]
        file.write_bytes(content)
        try:
            value = read_embedding(file)
        except InputError as error:
            assert str(file) in str(error)
            continue
        assert value.ndim == 2 and value.is_floating_point() and bool(value.isfinite().all())
        assert value.nbytes <= len(content)
        read += 1
    return read


def test_changed_bytes_give_an_array_or_a_refusal(tmp_path):
    """In a process of its own: what must not happen is a crash."""
    code = (
        "import pathlib, resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "from tests.data.test_array_pickle import fuzz; print(fuzz(pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < FUZZ_CASES
