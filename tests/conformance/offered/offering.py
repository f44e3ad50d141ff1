"""Things that no plugin offers, on trial, and what the checks say of them."""

from __future__ import annotations

from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.tried import ours
from kdbench.plugins import Offer


def findings(subject, kind=None):
    """What all checks of its kind say of it, by name."""
    every = checks_of(kind or subject.kind)
    return {check.name: carried_out(check, subject) for check in every}


def failed(found):
    return {name for name, finding in found.items() if finding.failed}


def said(subject, check, status="failed"):
    """What one check says of it."""
    [asked] = [one for one in checks_of(subject.kind) if one.name == check]
    finding = carried_out(asked, subject)
    assert finding.status == status, finding
    return finding.said


def subject(kind, thing, host=None):
    """Something that no plugin offers, on trial."""
    host = host or ours()
    return OfferSubject(host, kind, Offer(thing, host.plugins[0]))
