"""Archives from strangers: their files come out, and what they may cost is bounded."""

import gzip
import io
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.archives import (
    HARMLESS_BYTES,
    MAX_FILES,
    MAX_NAME,
    Upload,
    is_archive,
    printable,
    unpacked,
)
from webapp.errors import (
    ArchiveRefused,
    BadRequest,
    TooManyPictures,
    UploadTooLarge,
    WebError,
)

MAX_FILE = 1_000_000
FILES = {"b.jpg": b"b" * 512, "holidays/a.png": b"a" * 1000, "empty": b"", "c": b"c" * 511}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def gzipped(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tarred(files))


PACKERS: list[Callable[[dict[str, bytes]], bytes]] = [
    zipped,
    lambda files: zipped(files, zipfile.ZIP_STORED),
    tarred,
    lambda files: tarred(files, tarfile.GNU_FORMAT),
    lambda files: tarred(files, tarfile.USTAR_FORMAT),
    gzipped,
]
each_packer = pytest.mark.parametrize("pack", PACKERS)


def of(archive: bytes) -> list[Upload]:
    return list(unpacked(archive, MAX_FILE))


@each_packer
def test_what_was_packed_comes_out(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    archive = pack(FILES)
    assert is_archive(archive)
    assert of(archive) == [Upload(*file) for file in FILES.items()]


@each_packer
def test_what_nobody_meant_to_send_stays_in(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    notes = {"__MACOSX/a.png": b"1", ".DS_Store": b"2", "holidays/._a.png": b"3"}
    assert [upload.id for upload in of(pack(notes | FILES))] == list(FILES)
    with pytest.raises(BadRequest, match="no file"):
        of(pack(notes))


def test_folders_are_no_files() -> None:
    packed = io.BytesIO(zipped(FILES))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.mkdir("folder")
    assert len(of(packed.getvalue())) == len(FILES)


@pytest.mark.parametrize("pack", [zipped, tarred, gzipped])
def test_long_and_odd_names_are_only_names(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    name = "../../etc/" + "x" * 300 + "\N{RIGHT-TO-LEFT OVERRIDE}gpj.ä"
    [upload] = of(pack({name: b"1"}))
    assert len(upload.id) == MAX_NAME
    assert upload.id.endswith("x\N{REPLACEMENT CHARACTER}gpj.ä")


def test_a_file_may_have_no_name() -> None:
    archive = bytearray(zipped({"q": b"1"}))
    # The name becomes something else that a program may have added.
    for header, lengths in ((b"PK\3\4", 26), (b"PK\1\2", 28)):
        at = archive.index(header) + lengths
        archive[at : at + 4] = b"\0\0\1\0"
    assert of(bytes(archive)) == [Upload("", b"1")]


@settings(max_examples=25)
@given(st.text(max_size=30).map(lambda text: text * 10))
def test_a_name_can_always_be_printed(name: str) -> None:
    assert len(printable(name)) <= MAX_NAME
    assert printable(name).isprintable()
    printable(name).encode()


@each_packer
def test_one_file_that_is_too_large_fails_alone(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    large, fine = of(pack({"large": b"x" * (MAX_FILE + 1), "fine": b"y" * MAX_FILE}))
    assert isinstance(large.data, UploadTooLarge)
    assert fine.data == b"y" * MAX_FILE


@each_packer
def test_too_many_files_are_refused(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    files = {str(number): b"x" for number in range(MAX_FILES)}
    assert len(of(pack(files))) == MAX_FILES
    with pytest.raises(TooManyPictures):
        of(pack(files | {"one more": b"x"}))


@pytest.mark.parametrize("pack", [zipped, tarred, gzipped])
def test_a_bomb_is_refused_at_no_cost(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    part = bytes(MAX_FILE)
    files = {str(number): part for number in range(HARMLESS_BYTES // MAX_FILE + 1)}
    archive = pack(files)
    if len(archive) > HARMLESS_BYTES:
        archive = gzip.compress(archive)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(UploadTooLarge, match="32 MiB"):
            of(archive)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_FILE
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 2


def test_a_small_bomb_within_the_ratio_is_none() -> None:
    assert len(of(zipped({"drawing.bmp": bytes(MAX_FILE)}))) == 1


def test_a_file_that_is_larger_than_it_says_is_damaged() -> None:
    archive = zipped({"a": b"x" * 5000}, zipfile.ZIP_DEFLATED)
    lying = archive.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    [upload] = of(lying)
    assert isinstance(upload.data, ArchiveRefused)


def test_files_that_cannot_be_unpacked_fail_alone() -> None:
    archive = bytearray(zipped({"a": b"1" * 100, "b": b"2" * 100}, zipfile.ZIP_STORED))
    archive[archive.index(b"1" * 100)] ^= 1
    damaged, fine = of(bytes(archive))
    assert isinstance(damaged.data, ArchiveRefused)
    assert fine.data == b"2" * 100
    [lzma] = of(zipped({"a": b"1"}, zipfile.ZIP_LZMA))
    assert isinstance(lzma.data, ArchiveRefused)
    encrypted = bytearray(zipped({"a": b"1"}))
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    [secret] = of(bytes(encrypted))
    assert isinstance(secret.data, ArchiveRefused)
    assert "encrypted" in secret.data.detail


def test_links_and_devices_are_not_followed() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("passwd")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    uploads = of(packed.getvalue())
    assert len(uploads) == 4
    assert all(isinstance(upload.data, ArchiveRefused) for upload in uploads)


def test_a_directory_of_a_million_entries_is_not_read() -> None:
    entry = zipped({"a": b""})
    at, end = entry.index(b"PK\1\2"), entry.index(b"PK\5\6")
    directory = entry[at:end] * 200_000
    tail = bytearray(entry[end:])
    tail[12:16] = len(directory).to_bytes(4, "little")
    tail[16:20] = at.to_bytes(4, "little")
    began = time.process_time()
    with pytest.raises(TooManyPictures):
        of(entry[:at] + directory + bytes(tail))
    assert time.process_time() - began < 0.5


def test_endless_headers_are_not_read() -> None:
    member = tarfile.TarInfo("a")
    member.pax_headers = {"comment": "x" * 100_000}
    with pytest.raises(ArchiveRefused):
        of(member.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    member.pax_headers = {f"k{number}": "x" for number in range(1000)}
    began = time.process_time()
    with pytest.raises((ArchiveRefused, TooManyPictures)):
        of(gzip.compress(member.tobuf(tarfile.PAX_FORMAT) * 1000))
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("pack", "cut"),
    [(zipped, 100), (zipped, -10), (tarred, 600), (tarred, 2000), (gzipped, -20)],
)
def test_an_archive_that_ends_too_soon_is_damaged(
    pack: Callable[[dict[str, bytes]], bytes], cut: int
) -> None:
    with pytest.raises(ArchiveRefused):
        of(pack({"a": b"1" * 600, "b": b"2" * 600})[:cut])


def test_a_header_in_the_middle_that_is_none_is_damage() -> None:
    archive = bytearray(tarred({"a": b"1" * 600, "b": b"2" * 600}))
    archive[archive.index(b"b\0")] = ord("x")
    with pytest.raises(ArchiveRefused):
        of(bytes(archive))


def test_what_gzip_packed_and_is_no_tar_is_refused() -> None:
    with pytest.raises(ArchiveRefused):
        of(gzip.compress(b"x" * 10_000))


@given(st.sampled_from(PACKERS), st.data())
def test_damage_gives_files_or_one_of_our_errors(
    pack: Callable[[dict[str, bytes]], bytes], data: st.DataObject
) -> None:
    archive = bytearray(pack(FILES))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    packed = bytes(archive)
    if not is_archive(packed):
        return
    try:
        for upload in of(packed):
            assert isinstance(upload.data, bytes | WebError)
            assert isinstance(upload.data, WebError) or len(upload.data) <= MAX_FILE
    except WebError:
        return


def test_pictures_are_no_archives() -> None:
    assert not is_archive(b"\xff\xd8\xff" + bytes(500))
    assert not is_archive(b"")
    assert is_archive(zlib.compress(b"") + bytes(300)) is False
