"""One immutable revision on disk: a folder with the arrays and the manifest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.reference import MemoryBank, ReferenceModel
from patchserve_server.store.bank_file import BankFile, check_bank, write_bank
from patchserve_server.store.files import discard, is_plain_folder, read_small, sync, write_synced
from patchserve_server.store.records import FORMAT_VERSION, DamageError, Manifest, decode, encode

_BANK = "bank.safetensors"
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 65536


def write_generation(folder: Path, model: ReferenceModel, revision: str) -> None:
    """Writes a new folder and waits for the disk.

    Raises:
        ValueError: it would not load again, or the revision is not the model's.
    """
    manifest = encode(
        Manifest(
            format_version=FORMAT_VERSION,
            revision=revision,
            spec=model.spec,
            options=model.options,
            calibration=model.calibration,
        )
    )
    _proven_model(decode(Manifest, manifest), model.bank)
    folder.mkdir()
    write_bank(folder / _BANK, model.bank)
    write_synced(folder / _MANIFEST, manifest)
    sync(folder)


def install_generation(written: Path, place: Path) -> None:
    """Moves a written folder to its name.

    What may be there already has the same revision, so the same content, or is damaged: replaced file by file, a sound
    one is whole at every moment.
    """
    if is_plain_folder(place):
        for name in (_BANK, _MANIFEST):
            if is_plain_folder(place / name):
                discard(place / name)
            (written / name).replace(place / name)
        sync(place)
    else:
        discard(place)
        written.rename(place)


def discard_generation(place: Path) -> None:
    """Removes what `write_generation` made, as far as that goes, and nothing else: a foreign file keeps its folder."""
    if is_plain_folder(place):
        with suppress(OSError):
            for name in (_MANIFEST, _BANK):
                (place / name).unlink(missing_ok=True)
            place.rmdir()


class OpenGeneration:
    """A revision whose files are open: it can be read even if it is removed meanwhile.

    Raises:
        DamageError: the folder, the manifest or the bank's header breaks the format.
    """

    def __init__(self, place: Path) -> None:
        if place.is_symlink():
            raise DamageError("its revision is a link to another folder")
        self._manifest = decode(Manifest, read_small(place / _MANIFEST, "manifest", _MAX_MANIFEST_BYTES))
        if self._manifest.revision != place.name:
            raise DamageError("its manifest is that of another revision")
        self._bank = BankFile(place / _BANK)

    def read(self) -> ReferenceModel:
        """The model, proven by its digest to be the one that was saved.

        Raises:
            DamageError: it is not.
        """
        return _proven_model(self._manifest, self._bank.read())


def _proven_model(manifest: Manifest, bank: MemoryBank) -> ReferenceModel:
    check_bank(bank)
    model = ReferenceModel(manifest.spec, manifest.options, bank, manifest.calibration)
    if revision_of(model) != manifest.revision:
        raise DamageError("its content does not have the digest that its revision names")
    return model
