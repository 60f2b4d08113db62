"""The policy library that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.errors import (
    SettingError,
)
from gateway.ident import Sha256
from gateway.policy.library import Library
from gateway.settings import Sourced
from gateway.store.libraries import kept_library
from gateway.store.policies import builtin_policies, read_policy_files


def load_library(sourced: Sourced) -> tuple[dict[str, str], Library]:
    """Read and load the policies that the settings name; return their text too.

    Raises:
        MalformedPolicyError: a file can't be read as what it should be; nothing is loaded.
        SettingError: there is no such folder, or no such overlay.
    """
    settings = sourced.settings
    folder = (
        builtin_policies()
        if settings.policies == "builtin"
        else sourced.path(settings.policies)
    )
    own = None if settings.own_policies is None else sourced.path(settings.own_policies)
    files = read_policy_files(folder, own)
    library = Library.load(files)
    for overlay in settings.overlays:
        versions = library.policies.get(overlay, ())
        if not versions or versions[0].kind != "overlay":
            known = [n for n, many in library.policies.items() if many[0].kind == "overlay"]
            raise SettingError(
                f"`overlays` names `{overlay}`, which is no overlay of the library",
                hint=f"known: {', '.join(sorted(known)) or 'none'}",
            )
    return files, library


def load_kept(data: Path, digest: Sha256) -> tuple[Mapping[str, str], Library]:
    """Read and load a library that was put in force in *data*, whatever lies elsewhere now.

    Raises:
        NotFoundError: it was never in force here.
        MalformedPolicyError: what is kept can't be read.
    """
    files = kept_library(data, digest)
    return files, Library.load(files)
