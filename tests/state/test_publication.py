"""A version is there whole or not at all, and only the newest term's CURRENT counts."""

import json
import os
import shutil

import numpy as np
import pytest

from state import durable, lease
from state.errors import DamagedVersion, NoSpace, PublicationError, Superseded
from state.index import build
from state.lease import Lineage
from state.manifest import GenerationName
from state.publication import Publications
from state.versions import VersionName, open_version, read_current, versions
from tests.state.catalogue import SMALL, Publisher, catalogue
from tests.state.children import die, run_in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(scope="module")
def items():
    return catalogue(400)


@pytest.fixture(scope="module")
def built(items):
    return build(items, SMALL)


def die_at_call(n):
    """Kill this process at its n-th system call that changes what is on the disk."""
    left = [n]

    def dying(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                die()
            return call(*arguments, **options)

        return counted

    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))


def whole(publisher):
    """Open what CURRENT names, as a service would; its generation's number."""
    name = read_current(publisher.published)
    version = open_version(publisher.published, name, "ivf")
    return GenerationName.parse(version.manifest["generation"]).number


@pytest.mark.parametrize("kind", ["ivf", "lsh"])
def test_what_was_published_is_what_is_opened(kind, tmp_path, items, built):
    publisher = Publisher(tmp_path)
    name = publisher.publish(5, items, built, created_ms=77)

    version = open_version(publisher.published, read_current(publisher.published), kind)

    assert (version.name, version.kind) == (name, kind)
    assert version.items.ids() == items.ids()
    for column in ("vectors", "clicks", "popularity"):
        assert getattr(version.items, column).tolist() == getattr(items, column).tolist()
    ours, theirs = (
        one.search(items.vectors[:50], 10) for one in (built[kind].index, version.index)
    )
    assert (ours[1] == theirs[1]).all()
    assert (ours[0] == theirs[0]).all()
    manifest = version.manifest
    assert manifest["generation"] == "0001-000000000005"
    assert manifest["space_id"] == "space"
    assert manifest["offsets"] == [["clicks", 0, 50]]
    assert (manifest["created_ms"], manifest["n_items"], manifest["dim"]) == (77, 400, 8)
    assert manifest["indexes"][kind]["recall_at_10"] == built[kind].recall
    assert manifest["indexes"][kind]["parameters"] == built[kind].parameters


def test_names_read_like_the_blueprint(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1)

    assert (publisher.published / "CURRENT").read_text() == "v0001-000000000001 1\n"
    assert sorted(path.name for path in (publisher.published / "v0001-000000000001").iterdir()) == [
        "exact.faiss",
        "items.safetensors",
        "manifest.json",
        "vectors.safetensors",
    ]


def test_before_the_first_version_there_is_none(tmp_path):
    assert read_current(tmp_path / "nowhere") is None
    assert read_current(Publisher(tmp_path).published) is None


def test_an_empty_version_can_be_published_and_opened(tmp_path):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1, catalogue(0))

    version = open_version(publisher.published, name, "lsh")

    assert (version.kind, version.items.ids(), version.index.ntotal) == ("exact", [], 0)


def test_any_kind_opens_the_exact_index_that_stands_in(tmp_path):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1)

    assert {open_version(publisher.published, name, kind).kind for kind in ("ivf", "lsh")} == {
        "exact"
    }
    assert (
        open_version(publisher.published, name, "ivf").index_facts["reason"].startswith("40 items")
    )


def test_a_kind_that_was_not_built_is_refused_with_the_way_out(tmp_path, items, built):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1, items, {"lsh": built["lsh"]})

    with pytest.raises(PublicationError, match=r"'ivf', found lsh; set serving\.kind"):
        open_version(publisher.published, name, "ivf")


def test_older_versions_are_dropped_and_open_ones_stay_usable(tmp_path, items, built):
    publisher = Publisher(tmp_path, retain=2)
    first = open_version(publisher.published, publisher.publish(1, items, built), "ivf")

    names = [publisher.publish(number, items, built) for number in (2, 3, 4)]

    assert versions(publisher.published) == names[-2:]
    assert first.index.search(items.vectors[:1], 1)[1][0, 0] == 0


@pytest.mark.crash
def test_a_kill_at_any_step_leaves_a_whole_version_and_the_next_start_goes_on(
    tmp_path, items, built
):
    survived, step = None, 0
    while survived != 0:
        step += 1
        directory = tmp_path / str(step)
        publisher = Publisher(directory, retain=2)
        publisher.publish(1, items, built)
        publisher.publish(2, items, built)

        def publish_third(publisher=publisher, step=step):
            die_at_call(step)
            publisher.publish(3, items, built)

        survived = run_in_child(publish_third)

        assert whole(publisher) in (2, 3)
        publisher.hold.release()
        successor = Publisher(directory, GenerationName(1, 3), retain=2)
        assert whole(successor) in (2, 3)
        assert not list(successor.published.glob("*.tmp"))
        assert successor.publish(4, items, built).number > 2
        assert whole(successor) == 4
        assert len(versions(successor.published)) == 2
        successor.hold.release()
    assert step > 15


@pytest.mark.crash
def test_a_kill_at_any_step_of_taking_over_leaves_what_was_served_or_nothing_new(tmp_path):
    survived, step = None, 0
    while survived != 0:
        step += 1
        publisher = Publisher(tmp_path / str(step))
        publisher.publish(1)
        publisher.publish(2)
        publisher.hold.release()

        def take_over(step=step):
            hold = Publisher.__new__(Publisher)
            die_at_call(step)
            hold.__init__(tmp_path / str(step), GenerationName(1, 1))

        survived = run_in_child(take_over)

        try:
            served = whole(publisher)
        except Superseded:
            served = None
        assert served in (None, 1, 2) if survived else served == 1
        successor = Publisher(tmp_path / str(step), GenerationName(1, 1))
        assert whole(successor) == 1
        successor.hold.release()
    assert step > 3


def test_what_was_published_beyond_the_restored_generation_is_withdrawn(tmp_path):
    old = Publisher(tmp_path)
    kept, withdrawn = old.publish(1), old.publish(2)
    old.hold.release()

    successor = Publisher(tmp_path, GenerationName(1, 1))

    assert read_current(successor.published) == kept
    assert versions(successor.published) == [kept]
    assert successor.publish(3).number > withdrawn.number


def test_after_a_fresh_start_nothing_older_is_served(tmp_path):
    old = Publisher(tmp_path)
    old.publish(1)
    old.hold.release()

    successor = Publisher(tmp_path, None)

    assert read_current(successor.published) is None
    assert versions(successor.published) == []


@pytest.mark.parametrize("damage", ["none", "flip", "remove", "remove all"])
def test_a_version_with_a_damaged_part_is_not_gone_on_from_and_its_number_not_given_again(
    damage, tmp_path
):
    old = Publisher(tmp_path)
    name = old.publish(1)
    old.hold.release()
    part = old.published / str(name) / "vectors.safetensors"
    if damage == "flip":
        part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    elif damage == "remove":
        part.unlink()
    elif damage == "remove all":
        shutil.rmtree(part.parent)

    successor = Publisher(tmp_path, GenerationName(1, 1))
    manifest = successor.publications.newest_manifest()
    again = successor.publish(1)

    assert (manifest is None) == (damage != "none")
    assert again == VersionName(2, 2)
    assert open_version(successor.published, again, "ivf").items.ids()


def test_the_lineage_is_read_once_for_all_versions(tmp_path, monkeypatch):
    publisher = Publisher(tmp_path)
    for number in (1, 2, 3):
        publisher.publish(number)
    reads = []
    read = Lineage.read

    def counted(directory):
        reads.append(directory)
        return read(directory)

    monkeypatch.setattr(Lineage, "read", counted)
    publisher.publish(4)

    assert reads == [publisher.published]


def test_columns_are_written_without_a_copy_of_them_all(tmp_path, monkeypatch):
    monkeypatch.delattr(durable, "encode_section")
    publisher = Publisher(tmp_path)

    name = publisher.publish(1)

    assert open_version(publisher.published, name, "exact").items.ids() == catalogue(40).ids()


@pytest.mark.parametrize("last_act", ["point back", "remove"])
def test_readers_go_by_the_newest_version_that_counts_where_an_older_term_was_last(
    last_act, tmp_path
):
    old = Publisher(tmp_path)
    kept = old.publish(1)
    line = (old.published / "CURRENT").read_bytes()
    old.hold.release()
    successor = Publisher(tmp_path, GenerationName(1, 1))
    seen = []
    for number in (None, 2):
        newest = kept if number is None else successor.publish(number)
        (old.published / "CURRENT").unlink()
        if last_act == "point back":
            (old.published / "CURRENT").write_bytes(line)
        seen.append((read_current(old.published), newest))

    assert [found for found, _ in seen] == [wanted for _, wanted in seen]


def test_where_nothing_counts_a_current_of_an_older_term_is_told(tmp_path):
    old = Publisher(tmp_path)
    old.publish(1)
    line = (old.published / "CURRENT").read_bytes()
    old.hold.release()
    Publisher(tmp_path, None)

    (old.published / "CURRENT").write_bytes(line)

    with pytest.raises(Superseded, match="written by term 1, superseded by term 2"):
        read_current(old.published)


def test_a_superseded_writer_publishes_nothing(tmp_path):
    old = Publisher(tmp_path)
    kept = old.publish(1)
    old.hold.release()
    successor = Publisher(tmp_path, GenerationName(1, 1))

    with pytest.raises(Superseded):
        old.publish(2)
    assert versions(old.published) == [kept]
    assert read_current(successor.published) == kept


def test_a_writer_that_never_learns_harms_nothing_of_the_newer_term(tmp_path):
    old = Publisher(tmp_path)
    old.publish(1)
    old.hold.release()
    successor = Publisher(tmp_path, GenerationName(1, 1))
    newer = [successor.publish(2), successor.publish(3)]
    old.publications._check = lambda: None  # paused just after each of its checks

    old.publish(2)

    assert read_current(old.published) == newer[-1]
    assert [open_version(successor.published, name, "ivf").name for name in newer] == newer
    newest = successor.publish(4)
    assert read_current(successor.published) == newest


def test_a_writer_superseded_while_it_writes_leaves_current_alone(tmp_path, monkeypatch):
    old = Publisher(tmp_path)
    kept = old.publish(1)
    rename = durable.rename_directory

    def superseded_meanwhile(source, target):
        rename(source, target)
        old.hold.release()
        Publisher(tmp_path, GenerationName(1, 1))

    monkeypatch.setattr(durable, "rename_directory", superseded_meanwhile)

    with pytest.raises(Superseded):
        old.publish(2)
    assert read_current(old.published) == kept


def test_a_directory_that_newer_terms_published_to_is_refused(tmp_path):
    publisher = Publisher(tmp_path)
    (publisher.published / "terms" / "0009").write_text("{}")

    with pytest.raises(Superseded, match=r"which term 9 has published to; stop this process"):
        publisher.publish(1)


def test_two_state_directories_do_not_publish_to_one_place(tmp_path):
    lease.name_owner(tmp_path, "ours")
    ours = Publisher(tmp_path)
    kept = ours.publish(1)
    (tmp_path / "other").mkdir()
    lease.name_owner(tmp_path / "other", "theirs")
    for _ in range(3):  # as a supervisor does it: each start has a newer term
        hold = lease.hold(tmp_path / "other")
        theirs = Publications(ours.published, hold.begin_term(None), 3)
        with pytest.raises(PublicationError, match=r"another one; choose another publish\.dir"):
            theirs.adopt(None)
        hold.release()

    assert read_current(ours.published) == kept
    assert ours.publish(2) == VersionName(1, 2)


def test_a_place_is_claimed_with_the_first_version(tmp_path):
    first, second = Publisher(tmp_path / "a"), Publisher(tmp_path / "b")
    second.publications._directory = first.published
    lease.name_owner(tmp_path / "a", "ours")
    lease.name_owner(tmp_path / "b", "theirs")
    kept = first.publish(1)

    with pytest.raises(PublicationError, match="of another one"):
        second.publish(1)
    assert read_current(first.published) == kept


@pytest.mark.parametrize(
    "part", ["manifest.json", "ivf.faiss", "vectors.safetensors", "items.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_noticed_before_it_is_used(part, damage, tmp_path, items, built):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1, items, built)
    path = publisher.published / str(name) / part
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-2])
    else:
        path.unlink()

    with pytest.raises(DamagedVersion, match=f"{name}.*{part.split('.')[0]}"):
        open_version(publisher.published, name, "ivf")


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"v0001-1 1\n", b"v0001-000000000001\n"])
def test_a_garbled_current_is_an_error_that_shows_it(content, tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1)
    (publisher.published / "CURRENT").write_bytes(content)

    with pytest.raises(DamagedVersion) as caught:
        read_current(publisher.published)
    assert repr(content) in str(caught.value)


def test_a_start_heals_a_garbled_current(tmp_path):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1)
    (publisher.published / "CURRENT").write_bytes(b"")
    publisher.hold.release()

    Publisher(tmp_path, GenerationName(1, 1))

    assert read_current(publisher.published) == name


def test_a_version_of_a_newer_format_is_refused_as_such(tmp_path):
    publisher = Publisher(tmp_path)
    name = publisher.publish(1)
    path = publisher.published / str(name) / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["format"] = 2
    del fields["checksum"]
    text = json.dumps(fields, allow_nan=False, ensure_ascii=False, sort_keys=True)
    fields["checksum"] = durable.checksum(text.encode())
    path.write_text(json.dumps(fields))

    with pytest.raises(PublicationError, match="format 2 was written by a newer livevec"):
        open_version(publisher.published, name, "ivf")


def test_a_full_disk_leaves_the_version_before_and_the_next_attempt_works(tmp_path, monkeypatch):
    publisher = Publisher(tmp_path)
    first = publisher.publish(1)

    def full(path, content):
        message = "no space left"
        raise NoSpace(message)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_part", full)
        with pytest.raises(NoSpace):
            publisher.publish(2)
    assert read_current(publisher.published) == first
    assert not list(publisher.published.glob("*.tmp"))
    assert read_current(publisher.published) != publisher.publish(2) == VersionName(1, 2)


def test_arrays_of_a_version_are_columns_of_their_types(tmp_path):
    publisher = Publisher(tmp_path)
    items = open_version(publisher.published, publisher.publish(1), "ivf").items

    dtypes = {name: getattr(items, name).dtype for name in ("vectors", "clicks", "popularity")}
    assert dtypes == {"vectors": np.float32, "clicks": np.int64, "popularity": np.float32}
