"""A generation: the folder with the arrays and the manifest of one revision. It never changes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.reference import Bank, Reference, ReferenceModel
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.store.bank_file import BankFile, DescribedBank, write_bank
from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import exists, is_plain_folder, read_small_file, try_remove, write_synced
from patchserve_server.store.records import MANIFEST_VERSION, Manifest, decode_manifest, decode_record, encode_record
from patchserve_server.system.disk import sync_folder

BANK_NAME = "bank.safetensors"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 2**25


@dataclass(frozen=True, slots=True, eq=False)
class GenerationContent:
    """What the files of a generation contain."""

    model: ReferenceModel
    images: tuple[ReferenceImage, ...]  # empty: nothing is known about them


def encoded_manifest(reference: Reference) -> bytes:
    """The manifest of a reference.

    Raises:
        ValueError: the reference could not be loaded again, or its digest is another.
    """
    model = reference.model
    manifest = encode_record(
        Manifest(
            format_version=MANIFEST_VERSION,
            revision=reference.revision,
            spec=model.spec,
            options=model.options,
            calibration=model.calibration,
            sensitivity=model.sensitivity,
            images=reference.images,
            views_per_image=model.views_per_image,
        )
    )
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise ValueError("the manifest is too large")
    verified_content(decode_record(Manifest, manifest), model.bank)
    return manifest


def write_generation(folder: Path, reference: Reference) -> None:
    """Write a new folder and wait until it is on disk.

    Raises:
        ValueError: the reference could not be loaded again, or its digest is another.
    """
    manifest = encoded_manifest(reference)
    folder.mkdir()
    write_bank(folder / BANK_NAME, reference.model.bank)
    write_synced(folder / MANIFEST_NAME, manifest)
    sync_folder(folder)


def install_generation(written: Path, target: Path) -> None:
    """Move a written folder to its final name.

    An existing folder with this name has the same revision: its content is equal or damaged. Its files are replaced
    separately, so that an intact generation is complete at every moment.
    """
    if is_plain_folder(target):
        for name in (BANK_NAME, MANIFEST_NAME):
            if is_plain_folder(target / name):
                try_remove(target / name)
            (written / name).replace(target / name)
        sync_folder(target)
    else:
        try_remove(target)
        written.rename(target)


def is_generation(folder: Path) -> bool:
    """Whether it is a folder with a file of a generation, intact or not. Other folders belong to somebody else."""
    return is_plain_folder(folder) and (exists(folder / MANIFEST_NAME) or exists(folder / BANK_NAME))


def is_whole(folder: Path) -> bool:
    """Whether its files look intact, without reading the arrays. If the system refuses to open them, they may be."""
    try:
        OpenGeneration(folder)
    except DamageError:
        return False
    except OSError:
        return True
    return True


def try_remove_generation(folder: Path) -> None:
    """Remove the files that `write_generation` wrote, and the folder if nothing else is in it."""
    if is_plain_folder(folder):
        with suppress(OSError):
            for name in (MANIFEST_NAME, BANK_NAME):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


class OpenGeneration:
    """A generation whose files are open. It can be read even after it was removed.

    Args:
        folder: of the files.
        revision: what they must be; None: the folder's name.

    Raises:
        DamageError: the folder, the manifest or the header of the bank file breaks the format.
    """

    def __init__(self, folder: Path, revision: str | None = None) -> None:
        if folder.is_symlink():
            raise DamageError("its revision is a link to another folder")
        manifest = read_small_file(folder / MANIFEST_NAME, "manifest", MAX_MANIFEST_BYTES)
        self.manifest = decode_manifest(manifest)
        if self.manifest.revision != (folder.name if revision is None else revision):
            raise DamageError("its manifest belongs to another revision")
        self._bank = BankFile(folder / BANK_NAME)

    def described(self) -> DescribedBank:
        """What the shapes of the arrays say. They are not read, and no digest is checked.

        Raises:
            DamageError: the arrays do not have the shapes of a bank.
        """
        return self._bank.described()

    def read(self) -> GenerationContent:
        """The content. Its digest is checked against the revision.

        Raises:
            DamageError: the digest differs from the revision, or the bank file is damaged.
        """
        return verified_content(self.manifest, self._bank.read())


def verified_content(manifest: Manifest, bank: Bank) -> GenerationContent:
    """What a manifest and its arrays contain. The digest is checked against the revision.

    Raises:
        DamageError: the digest is another, or the arrays are not those of the manifest.
    """
    try:
        model = ReferenceModel(
            manifest.spec,
            manifest.options,
            bank,
            manifest.calibration,
            manifest.sensitivity,
            manifest.views_per_image,
        )
    except ValueError:
        raise DamageError("its bank file does not contain the arrays of its profile") from None
    if revision_of(model) != manifest.revision:
        raise DamageError("its content does not match its revision")
    if len(manifest.images) not in (0, len(bank.inputs)):
        raise DamageError("its manifest does not describe each of its images")
    return GenerationContent(model, manifest.images)
