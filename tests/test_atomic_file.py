from pathlib import Path

import pytest

from gateway import atomic_file


@pytest.mark.parametrize("sync", [False, True])
def test_a_replaced_file_has_its_new_content_and_mode_and_no_draft_stays(tmp_path: Path, *, sync: bool) -> None:
    path = tmp_path / "new folder" / "state"
    for content in (b"one", b"two"):
        with atomic_file.replacing(path, mode=0o600, sync=sync) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"before")
    with pytest.raises(TypeError), atomic_file.replacing(path) as file:
        file.write("no bytes")  # type: ignore[call-overload]  # what fails is the point
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_creator_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert atomic_file.create(path, b"first", mode=0o600, sync=True)
    assert not atomic_file.create(path, b"second", mode=0o600)
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"kept")
    (tmp_path / ".state.0123.draft").write_bytes(b"half")
    (tmp_path / ".other.0123.draft").write_bytes(b"of another file")
    atomic_file.remove_drafts(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == [".other.0123.draft", "state"]
