"""Card, report and bill of materials say what the manifests say, to tools and to people."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
import yaml

from gateway.dataset.manifest import (
    BASE_MODEL,
    DatasetManifest,
    LeftOut,
    MadeBy,
    MembersFacts,
    Parameters,
    Split,
    WrittenBy,
)
from gateway.dataset.manifest import Findings as DatasetFindings
from gateway.dataset.provenance import Metadata
from gateway.ident import DeclarationId
from gateway.intent.model import IntendedUse
from gateway.receipt.model import Subject
from gateway.student.bom import BOM, format_bom
from gateway.student.card import format_card
from gateway.student.manifest import Base, ModelManifest, Round, base_dependencies
from gateway.student.report import Course, format_report
from tests.support.views import SAMPLES, an_evaluation, some_held_out, some_steps
from tests.unit.test_student_manifest import DIGEST, TEACHER, a_manifest

JUDGE = msgspec.structs.replace(TEACHER, provider="judge", influence="judge", rows=2)
OUTSIDE = Base(kind="hub", name="org/name", sha256=DIGEST, licence="apache-2.0")
STRANGE = Base(kind="local", name="mine", sha256=DIGEST, licence="llama-3")
OURS = Base(kind="local", name="first", sha256=DIGEST, manifest=DIGEST)

DATASET = DatasetManifest(
    asked=Parameters(
        dataset="set", declaration=DeclarationId("use-0123456789abcdef0123"), project="search"
    ),
    found=DatasetFindings(
        rows=4,
        splits=(Split(name="train", rows=3), Split(name="held-out", rows=1)),
        left_out=(LeftOut(reason="no-receipt", count=2),),
        teachers=(TEACHER, JUDGE),
        use=IntendedUse(purpose="train.sft", student="parser"),
        day="2026-11-22",
        library=DIGEST,
        obligations=("keep-ai-label",),
        made_by=(MadeBy(name="tidy", version="1", kind="rewrite", rows=2),),
        written_by=(WrittenBy(by="ada", licence="cc0-1.0", source="by hand", rows=1),),
        members=MembersFacts(count=4, sha256=DIGEST),
    ),
    dependencies=(),
    subjects=(),
    metadata=Metadata(
        invocation_id="build-1",
        started_on="2026-11-22T09:00:00.000Z",
        finished_on="2026-11-22T09:01:00.000Z",
    ),
    version="0.1.0",
)


def invalid_in(bill: str) -> object:
    """Return what others' validator finds in a bill of materials, or nothing."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415  # slow, and only needed here
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415  # as above

    found: object = JsonStrictValidator(SchemaVersion.V1_7).validate_str(bill)
    return found


def a_student(base: Base, *, adapter: bool = False, **found: object) -> ModelManifest:
    """Return the manifest of a student that began as *base*."""
    manifest = a_manifest(
        teachers=(TEACHER, JUDGE),
        above=(TEACHER,),
        evaluation=an_evaluation(),
        form="adapter" if adapter else "full",
        **found,
    )
    files = ["evidence/set.manifest.json", "README.md", "report.html", "model.safetensors"]
    return msgspec.structs.replace(
        manifest,
        asked=msgspec.structs.replace(manifest.asked, base=base),
        dependencies=(*manifest.dependencies, *base_dependencies(base)),
        subjects=tuple(Subject(name=name, digest={"sha256": DIGEST}) for name in files),
    )


@pytest.mark.parametrize("base", [OUTSIDE, STRANGE, OURS], ids=lambda base: base.name)
@pytest.mark.parametrize("adapter", [False, True])
def test_the_bill_is_valid_whatever_was_trained(base: Base, *, adapter: bool) -> None:
    """A validator that others wrote takes it, strictly, for any base and form."""
    bill = format_bom(a_student(base, adapter=adapter), [DATASET, DATASET]).decode()

    assert invalid_in(bill) is None


def test_the_bill_of_a_manifest_with_nothing_beside_is_valid() -> None:
    """Neither an evaluation, nor a base, nor duties, nor a file of evidence are needed."""
    bill = format_bom(a_manifest(obligations=()), []).decode()

    assert invalid_in(bill) is None


def test_the_bill_names_base_teachers_data_and_files() -> None:
    """Ancestors are base, teachers and judges; data is governed; files go by digest."""
    bill = msgspec.json.decode(format_bom(a_student(OUTSIDE), [DATASET]))
    student = bill["metadata"]["component"]
    ancestors = [one["name"] for one in student["pedigree"]["ancestors"]]
    by_ref: dict[str, Any] = {one["bom-ref"]: one for one in bill["components"]}
    data = by_ref["dataset:set"]["data"][0]

    assert ancestors == ["org/name", "open-1", "open-1", "open-1"]
    assert by_ref["base"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert data["classification"] == "for train.sft only"
    assert data["governance"]["owners"] == [{"organization": {"name": "project search"}}]
    assert student["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert student["modelCard"]["modelParameters"]["datasets"] == [{"ref": "dataset:set"}]
    assert student["licenses"][0]["license"]["name"] == "see-teachers"
    assert {"ref": "student", "dependsOn": ["dataset:set", "base"]} in bill["dependencies"]
    taught = next(one for one in bill["dependencies"] if one["ref"] == "dataset:set")
    assert [by_ref[ref]["group"] for ref in taught["dependsOn"]][:2] == ["open", "judge"]


def test_the_bill_is_a_function_of_what_is_signed() -> None:
    """The same manifests give the same bytes; another one has another serial number."""
    manifest = a_student(OUTSIDE)
    itself = Subject(name=BOM, digest={"sha256": "b" * 64})
    named = msgspec.structs.replace(manifest, subjects=(*manifest.subjects, itself))
    other = a_student(OUTSIDE, device="another")

    assert format_bom(manifest, [DATASET]) == format_bom(named, [DATASET])
    assert serial_of(manifest) != serial_of(other)


def serial_of(manifest: ModelManifest) -> str:
    """Return the serial number of the bill of *manifest*."""
    serial: str = msgspec.json.decode(format_bom(manifest, [DATASET]))["serialNumber"]
    return serial


def test_the_front_matter_says_where_it_comes_from() -> None:
    """Base, datasets, licence and figures stand where the hub looks for them."""
    front = front_matter(format_card(a_student(OUTSIDE), [DATASET]))

    assert front["base_model"] == "org/name"
    assert front["base_model_relation"] == "finetune"
    assert front["datasets"] == ["set"]
    assert (front["license"], front["license_name"]) == ("other", "see-teachers")
    metrics = {one["type"]: one for one in front["model-index"][0]["results"][0]["metrics"]}
    assert metrics["exact-match"]["value"] == 0.45
    assert metrics["exact-match"]["args"] == {
        "low": 0.3,
        "high": 0.6,
        "confidence": 0.95,
        "rows": 40,
    }


@pytest.mark.parametrize("base", [OUTSIDE, STRANGE, OURS], ids=lambda base: base.name)
def test_no_base_makes_the_licence_permissive(base: Base) -> None:
    """Whatever the base allows, the card never says that the student may be used freely."""
    card = format_card(a_student(base), [DATASET])

    assert front_matter(card)["license"] == "other"


def test_rows_that_were_not_learned_are_not_shown_as_if_they_were() -> None:
    """Teachers are counted over whole datasets; what of that was learned stands beside it."""
    snapshot = msgspec.structs.replace(a_manifest().found.snapshot, rows=2, held_out=1)
    manifest = a_student(OUTSIDE, snapshot=snapshot)
    told = "4 rows in all: 2 of them were learned, 1 held out to measure with, 1 left out"
    whole = msgspec.structs.replace(snapshot, rows=4, held_out=None)

    assert told in format_card(manifest, [DATASET])
    assert told in format_report(manifest, [DATASET], Course())
    assert "rows in all" not in format_card(a_student(OUTSIDE, snapshot=whole), [DATASET])


def test_an_adapter_says_that_it_needs_its_base() -> None:
    """An adapter alone is nothing; the card says what it stands beside."""
    card = format_card(a_student(OUTSIDE, adapter=True), [DATASET])

    assert front_matter(card)["base_model_relation"] == "adapter"
    assert front_matter(card)["library_name"] == "peft"
    assert "used together with its base `org/name`" in card


def test_the_card_tells_rounds_and_what_the_weights_are() -> None:
    """A feed's rounds, the form of the weights and who answers for a licence are named."""
    base = msgspec.structs.replace(STRANGE, licence_said_by="grace")
    rounds = (Round(dataset=DIGEST, snapshot=DIGEST, steps=20),) * 2
    manifest = a_student(base, adapter=True, rounds=rounds, precision="bf16")
    card = format_card(manifest, [DATASET])
    report = format_report(manifest, [DATASET], Course())

    assert f"| round 2 | 20 steps; dataset `{DIGEST}` |" in card
    assert "an adapter (LoRA) beside the base, computed in bf16" in card
    assert "licence llama-3, as grace says" in card
    assert "<td>2</td><td>set</td>" in report


def test_the_card_tells_judges_transforms_and_people() -> None:
    """Whoever shaped the rows is named, and what their part was."""
    card = format_card(a_student(OUTSIDE), [DATASET])

    assert "| judge | open-1, as a judge | 2 | 100% |" in card
    assert "| tidy 1 | rewrite | 2 |" in card
    assert "| ada | cc0-1.0 | by hand | 1 |" in card


def test_a_student_nobody_asked_says_so() -> None:
    """Without an evaluation the card has no figures, and no index of them."""
    card = format_card(a_manifest(), [DATASET])

    assert "model-index" not in front_matter(card)
    assert "It was not: nothing was held out" in card


class Page(HTMLParser):
    """Collects what of a page could load, run or be seen."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.policy = self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take one tag."""
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.text += data


def a_report(*, samples: bool = True) -> str:
    """Return the report of a student with everything in it."""
    course = Course(
        steps=some_steps(rounds=2),
        held_out=some_held_out(),
        samples=SAMPLES if samples else (),
    )
    return format_report(a_student(OUTSIDE), [DATASET], course)


def test_the_report_loads_and_runs_nothing() -> None:
    """No tag or attribute of it could fetch or run anything, and its policy forbids it."""
    report = a_report()
    page = Page(report)
    style = re.findall("<style>(.*?)</style>", report, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()

    assert not page.tags & {"script", "link", "img", "iframe", "a", "object", "form", "base"}
    assert not {one for one in page.attributes if one.startswith("on")}
    assert not page.attributes & {"src", "href", "style", "xlink:href"}
    assert page.policy == f"default-src 'none'; style-src 'sha256-{digest}'"
    assert len(style) == 1
    assert "url(" not in style[0]


def test_the_report_shows_rows_only_where_samples_were_asked_for() -> None:
    """Words of held-out rows stand in it as samples, as text, or not at all."""
    assert "What is the word for <3>?" in Page(a_report()).text
    assert "What is the word for" not in a_report(samples=False)


def test_the_report_tells_base_student_and_teacher_apart() -> None:
    """Figures stand side by side with their intervals, in the table and as a picture."""
    report = a_report()

    assert "0.600 [0.450, 0.750]" in report
    assert "0.900 [0.800, 0.975]" in report
    assert report.count('<circle class="apart"') == len(some_held_out()) + 3


def test_a_bases_dependency_is_named() -> None:
    """The manifests that the views are drawn from keep the edge to the base."""
    assert a_student(OUTSIDE).dependencies[-1].kind == BASE_MODEL


def front_matter(card: str) -> dict[str, Any]:
    """Return the front matter of *card*, read as YAML."""
    read: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return read
