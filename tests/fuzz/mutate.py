"""Changes to the bytes of a file, by a seeded generator: flips, cuts, copies, odd numbers and odd tokens."""

from __future__ import annotations

import io
import random
import re
import zipfile

TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"true", b"null", b"[]", b"{}", b'""', b'"../x"',
    b'"/etc/passwd"', b'"\\ud800"', b'"\\u0000"', b"9223372036854775808", b"1" * 5000, b"1.5", b"\xff\xfe", b"\n",
    b"[" * 3000, b'{"a":' * 3000, b"&a [*a]", b"!!python/object:os.system", b"\x00", b"a: b: c",
    b'"' + b"x" * 300 + b'"',
]  # fmt: skip
NUMBERS = [0, 1, -1, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30]


def mutate(content: bytes, chosen: random.Random) -> bytes:
    """One to four changes; archives are also changed inside, with checksums that fit."""
    if content[:2] == b"PK" and chosen.random() < 0.8:
        return _inside_archive(content, chosen)
    changed = bytearray(content)
    for _ in range(chosen.choice((1, 1, 1, 2, 3, 4))):
        changed = _change(changed, chosen)
    return bytes(changed)


def _change(content: bytearray, chosen: random.Random) -> bytearray:
    # The beginning says how the rest is read: half of the changes are there.
    reach = len(content) if chosen.random() < 0.5 else min(len(content), 400)
    place = chosen.randrange(reach) if reach else 0
    length = min(chosen.choice((1, 2, 4, 8, 64)), len(content) - place)
    kind = chosen.randrange(8)
    if kind == 0 and content:
        content[place] ^= 1 << chosen.randrange(8)
    elif kind == 1 and content:
        content[place] = chosen.choice((0, 1, 0x7F, 0x80, 0xFF, chosen.randrange(256)))
    elif kind == 2:
        del content[place : place + length]
    elif kind == 3:
        content[place:place] = content[place : place + length] * chosen.choice((1, 2, 20))
    elif kind == 4:
        content[place : place + chosen.choice((0, length))] = chosen.choice(TOKENS)
    elif kind == 5:
        return content[:place]
    elif kind == 6:
        return _odd_number(content, chosen)
    else:
        size = chosen.choice((1, 2, 4, 8))
        number = chosen.choice(NUMBERS) % (1 << 8 * size)
        content[place : place + size] = number.to_bytes(size, chosen.choice(("little", "big")))
    return content


def _odd_number(content: bytearray, chosen: random.Random) -> bytearray:
    found = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"]*"|true|false|null', bytes(content)))
    if not found:
        return content
    match = chosen.choice(found)
    new = chosen.choice(TOKENS) if chosen.random() < 0.5 else str(chosen.choice(NUMBERS)).encode()
    return content[: match.start()] + new + content[match.end() :]


def _inside_archive(content: bytes, chosen: random.Random) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(changed, "w") as target:
        names = source.namelist()
        # The pickle that says what the rest means is changed most often.
        pickles = [name for name in names if name.endswith("data.pkl")]
        victim = pickles[0] if pickles and chosen.random() < 0.8 else chosen.choice(names)
        for name in names:
            data = source.read(name)
            target.writestr(name, mutate(data, chosen) if name == victim else data)
    return changed.getvalue()
