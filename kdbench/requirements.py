"""What suites and plugins require of the packages around them (PEP 508)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from kdbench import __version__


def parsed(text: str) -> Requirement:
    """Such as "kdbench-soft-targets>=1". Raises ValueError, in one line."""
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0].strip()
        raise ValueError(f"{text!r} is no requirement ({why})") from None


def of_suite(text: str) -> Requirement:
    """One that can be looked up: a name, versions, perhaps a marker. ValueError."""
    requirement = parsed(text)
    if requirement.extras or requirement.url:
        raise ValueError(
            f"{text!r}: write a name and versions; extras and addresses are not checked"
        )
    return requirement


def of_distribution(distribution: metadata.Distribution) -> list[Requirement]:
    """What it requires here: without extras, and where the markers hold."""
    every = [parsed(text) for text in distribution.requires or ()]
    return [requirement for requirement in every if applies(requirement)]


def applies(requirement: Requirement) -> bool:
    """Whether its marker, if it has one, holds on this machine."""
    marker = requirement.marker
    return marker is None or marker.evaluate({"extra": ""})


def same(name: str, other: str) -> bool:
    """Whether two names are of one distribution."""
    return canonicalize_name(name) == canonicalize_name(other)


def installed(name: str) -> str | None:
    """The version that is installed; of kdbench, the one that runs."""
    if same(name, "kdbench"):
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits(requirement: Requirement, version: str) -> bool:
    """Whether this version is one that is wanted; a pre-release may be."""
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def wanted(requirement: Requirement) -> str:
    """As it is written, without the marker."""
    return str(requirement).partition(";")[0].strip()


def pip_line(requirements: Iterable[Requirement]) -> str:
    """The command that installs these."""
    return "pip install " + " ".join(f'"{wanted(r)}"' for r in requirements)
