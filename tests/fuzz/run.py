"""Fuzz the readers: ``python -m tests.fuzz.run --seconds 600 [TARGET ...]``; what escapes lies in the output folder.

Each target runs in a process of its own with bounded memory, which is started again after a crash; a changed file
stays on disk while it is read, so that a crash leaves what caused it.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
MEMORY = 8 << 30
"""Bytes of address space; the libraries themselves take most of it."""
GROWTH = 1 << 28
"""Bytes by which one input may let the resident memory grow: all of them are small."""


def fuzz(name: str, out: Path, seconds: float, seed: int) -> None:
    """The loop of one process."""
    from nemo_cosmos.errors import InputError
    from tests.fuzz.mutate import mutate
    from tests.fuzz.targets import TARGETS

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target, chosen, counts, seen = TARGETS[name], random.Random(seed), Counter[str](), set()
    work = out / f"{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    target.make(work)
    whole = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    target.read(work)
    before = most = peak()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        file = work / chosen.choice(target.files)
        file.write_bytes(mutate(whole[file], chosen))
        kept = file.read_bytes()
        try:
            target.read(work)
            counts["read"] += 1
        except InputError as error:
            counts["refused" if str(error).strip() else "refused without a word"] += 1
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            counts["escaped"] += 1
            if (key := (type(error).__name__, where.filename, where.lineno)) not in seen:
                seen.add(key)
                keep(out, name, file.relative_to(work), kept, traceback.format_exc())
        if peak() - most > GROWTH:
            counts["memory grew"] += 1
            keep(out, name, file.relative_to(work), kept, f"{(peak() - most) >> 20} MiB more than before")
            most = peak()
        for path, content in whole.items():
            if path == file or path.name == "manifest.json":
                path.write_bytes(content)
    print(f"{name}: {dict(counts)}, {(peak() - before) >> 20} MiB more than at the start", flush=True)


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep(out: Path, name: str, file: Path, content: bytes, what: str) -> None:
    """Store what was not refused, with what happened, under a name that no other finding has."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=out))
    (folder / file.name).write_bytes(content)
    (folder / "what.txt").write_text(f"{name} {file}\n{what}")


def watch(name: str, out: Path, seconds: float) -> bool:
    """Run a target until its time is over; whether nothing crashed and nothing escaped."""
    end, seed, well = time.monotonic() + seconds, int(time.time()), True
    while (left := end - time.monotonic()) > 1:
        words = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(left), "--out", str(out)]
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run([*words, "--child", str(seed)], stdout=said, stderr=subprocess.DEVNULL, check=False)
            said.seek(0)
            text = said.read()
        print(text, end="", flush=True)
        if done.returncode:
            print(f"{name}: ended with {done.returncode}", flush=True)
            shutil.copytree(out / f"{name}.work", out / f"{name}.crash{seed}")
        well = well and not done.returncode and "escaped" not in text and "memory" not in text.replace("MiB more", "")
        seed += 1
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="default: all, one after another")
    parser.add_argument("--seconds", type=float, default=600, help="for each target (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz"), help="findings (%(default)s)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        fuzz(arguments.targets[0], arguments.out, arguments.seconds, arguments.child)
        return
    from tests.fuzz.targets import TARGETS

    arguments.out.mkdir(parents=True, exist_ok=True)
    results = [watch(name, arguments.out, arguments.seconds) for name in arguments.targets or TARGETS]
    raise SystemExit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
