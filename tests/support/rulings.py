"""A small library of three policies, a model and two standard uses, to rule on and to edit."""

from __future__ import annotations

import datetime as dt
from typing import Final

from gateway.policy.library import Library
from gateway.policy.standard import StandardUses, load_standard_uses

DAY: Final = dt.date(2026, 11, 22)

TERMS: Final = """\
documents:
  - id: words
    title: Terms
    url: https://acme.example/terms
    version: "1"
    confidence: primary
    read: {where: the original, when: 2026-11-01}
"""

ACME: Final = """\
policy: acme
version: 1
title: Acme API
in_force_from: 2026-01-01
review_by: 2027-01-01
terms: [words]
clauses:
  - id: may-use
    effect: permit
    when: {purpose: [inference, evaluate]}
    citation: {document: words, section: "1"}
    obligations: [disclose-ai]
    because: Plain use is fine.
    change: Other terms.
  - id: no-rivals
    effect: forbid
    when: {purpose: train, competes: true}
    citation: {document: words, section: "2"}
    because: Rivals are barred.
    change: A student that does not compete.
  - id: may-train
    effect: permit
    when: {purpose: train, audience: internal}
    citation: {document: words, section: "3"}
    because: Training inside is fine.
    change: Leaving the house.
"""

HOST: Final = """\
policy: host
version: 1
title: Host of weights
in_force_from: 2026-01-01
review_by: 2027-01-01
terms: [words]
with_model_terms: true
clauses:
  - id: model-decides
    effect: permit
    when: {access-route: [host, first-party]}
    citation: {document: words, section: "1"}
    because: The model's terms decide.
    change: Another model.
"""

LICENCE: Final = """\
policy: free
version: 1
title: Free licence
in_force_from: 2026-01-01
review_by: 2027-01-01
terms: [words]
clauses:
  - id: granted
    effect: permit
    citation: {document: words, section: "1"}
    obligations: [include-licence]
    because: All of it is granted.
    change: Another licence.
"""

MODELS: Final = """\
models:
  - {id: free-7b, terms: [free], source: the model's card, confidence: primary}
"""

STANDARD: Final = """\
common:
  use: {jurisdiction: US}
  facts: {account-tier: paid}
uses:
  - name: use
    title: Use it
    use: {purpose: inference}
  - name: train
    title: Train on it
    use: {purpose: train.sft, audience: internal, competes: false}
    facts: {gateway-role: internal}
    variants:
      - name: rival
        title: a rival
        use: {competes: true}
rows:
  - {id: host-free, title: Free weights, policy: host, model: free-7b,
     facts: {access-route: host}}
  - {id: host-other, title: Other weights, policy: host, purposes: {train: verify}}
"""


def small_files(**texts: str) -> dict[str, str]:
    """Return the library's files; *texts* replaces some by name, an empty one strikes out."""
    policies = {"acme": ACME, "host": HOST, "free": LICENCE}
    folders = {"acme": "acme", "host": "host", "free": "licences/free"}
    files = {
        "models.yaml": texts.pop("models", MODELS),
        "standard-uses.yaml": texts.pop("standard", STANDARD),
    }
    for name, text in (policies | texts).items():
        if text:
            folder = folders.get(name, name)
            files |= {
                f"{folder}/policy.yaml": text,
                f"{folder}/terms.yaml": TERMS,
                f"{folder}/review.md": "# Review\n",
            }
    return files


def small_library(**texts: str) -> Library:
    """Return the library of those files."""
    return Library.load(small_files(**texts))


def small_uses(text: str = STANDARD) -> StandardUses:
    """Return the standard uses of those files."""
    return load_standard_uses(text, "standard-uses.yaml", ("acme", "host", "free"))
