"""Captions written for datasets that come without."""

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.captions import captions_from_table, give_captions

PROMPT = "An image of sks teal robot."


def media(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def texts(root):
    metas = root / "metas"
    return {p.relative_to(metas).as_posix(): p.read_text() for p in sorted(metas.rglob("*.txt"))}


def test_each_image_and_nothing_else(tmp_path):
    media(tmp_path, "images/a.jpg", "images/b.c.PNG", "images/.hidden.jpg", "images/notes.md", "videos/v.mp4")
    media(tmp_path, "images/day/a.jpg")
    found = give_captions(tmp_path, PROMPT, is_image=True)
    assert texts(tmp_path) == {"a.txt": PROMPT, "b.c.txt": PROMPT, "day/a.txt": PROMPT}
    assert found == [tmp_path / "metas" / name for name in ("a.txt", "b.c.txt", "day/a.txt")]


def test_captions_that_are_there_stay_and_are_told(tmp_path, caplog):
    media(tmp_path, "videos/a.mp4", "videos/day/b.MOV", "videos/c.mp4")
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas/a.txt").write_text("edited by hand")
    (tmp_path / "metas/b.txt").write_text(f"{PROMPT}\n")
    found = give_captions(tmp_path, PROMPT)
    assert [path.name for path in found] == ["a.txt", "b.txt", "c.txt"], "a caption that lies flat is not shadowed"
    assert texts(tmp_path) == {"a.txt": "edited by hand", "b.txt": f"{PROMPT}\n", "c.txt": PROMPT}
    assert "1 captions differ from the prompt and stay; delete them to use it: " in caplog.text
    assert "metas/a.txt" in caplog.text


@pytest.mark.parametrize(
    ("files", "is_image", "words"),
    [
        ([], True, "images is missing"),
        (["images/a.jpg"], False, "videos is missing; give --is_image for those in"),
        (["videos/a.mp4"], True, "images is missing; leave --is_image out for those in"),
        (["images/a.mp4", "images/b.mp4"], True, "images holds no image .*; found 2 .mp4"),
        (["videos/a.jpg"], False, "holds no video"),
    ],
)
def test_nothing_to_caption(tmp_path, files, is_image, words):
    media(tmp_path, *files)
    with pytest.raises(InputError, match=words):
        give_captions(tmp_path, PROMPT, is_image=is_image)
    assert not (tmp_path / "metas").exists()


def test_a_prompt_that_is_no_text(tmp_path):
    media(tmp_path, "images/a.jpg")
    with pytest.raises(InputError, match=r"--prompt .* is no UTF-8 text"):
        give_captions(tmp_path, "robot \udcff", is_image=True)


def test_a_table(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text('file,prompt\n\nx/a.mp4,"say ""hi"", then go"\nb.mp4,one, two\n', encoding="utf-8-sig")
    captions_from_table(tmp_path, table, "  Prefix. ")
    assert texts(tmp_path) == {"a.txt": 'Prefix. say "hi", then go', "b.txt": "Prefix. one, two"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,prompt\n", "no lines after its header"),
        ("file,prompt\na.mp4\n", "line 2: expected FILE,PROMPT"),
        ("file,prompt\na.mp4,x\nd/a.mp4,y\n", "line 3: a has another prompt above"),
        (None, "does not exist"),
    ],
)
def test_tables_that_do_not_do(tmp_path, content, words):
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        captions_from_table(tmp_path, tmp_path / "t.csv")
    assert not (tmp_path / "metas").exists()
