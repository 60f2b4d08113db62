"""The twin of `gateway.intent.declare`."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.errors import MalformedDeclarationError
from gateway.intent.declare import format_inline, parse_inline, parse_use_header, use_of
from gateway.intent.model import IntendedUse


def test_an_id_is_an_id() -> None:
    """A declaration's id is returned as it is."""
    assert parse_use_header(" use-0123456789abcdef0123 ") == "use-0123456789abcdef0123"


def test_a_use_is_read_from_a_dictionary() -> None:
    """Tokens, strings, display strings and truth values are all read."""
    said = (
        "purpose=train.sft, student=invoice-parser, student-kind=extractor, "
        'audience="internal", competes=?0, commercial, competes-basis=%"caf%c3%a9"'
    )

    assert parse_use_header(said) == IntendedUse(
        purpose="train.sft",
        student="invoice-parser",
        student_kind="extractor",
        audience="internal",
        competes=False,
        commercial=True,
        competes_basis="café",
    )


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("use-xyz", "`use-xyz` is not a declaration's id", "20 hex digits"),
        ("", "no purpose", "add `purpose=…`"),
        ("student=a", "no purpose", "train.sft"),
        ("purpos=train", "unknown key `purpos`", "did you mean `purpose`?"),
        ("xyz=train", "unknown key `xyz`", "a use has purpose, student"),
        ("purpose=train.stf", "unknown purpose `train.stf`", "did you mean `train.sft`?"),
        ("purpose=zzz", "unknown purpose `zzz`", "write one of inference, evaluate"),
        ("purpose=train, student-kind=bot", "unknown student-kind `bot`", "extractor"),
        ("purpose=train, audience=all", "unknown audience `all`", "customers, public"),
        ("purpose=train, visibility=all", "unknown visibility `all`", "weights"),
        ("purpose=train, student=A_Parser", "no name for a student", "small letters"),
        ("purpose=train, competes=no", "`competes` is a yes or a no", "`competes=?0`"),
        ("purpose=train, student", "`student` says nothing", "leave it out"),
        ('purpose=train, agreement=""', "`agreement` says nothing", "leave it out"),
        ("purpose=1", "`purpose` is neither", "`purpose=word`"),
        ("purpose=(train)", "`purpose` says nothing", "leave it out"),
        ("purpose=data.publish", "unknown purpose `data.publish`", "`publish"),
        ("purpose=train, research=yes", "`research` is a yes or a no", "`research=?1`"),
        ("purpose=train, automation=robot", "unknown automation `robot`", "scripted"),
        ("purpose=train, notices=display", "unknown word `display` in", "`notices=(licence"),
        ("purpose=train, notices=(displays)", "unknown word `displays` in", "display"),
        ("purpose=train, notices=(1)", "`notices` is neither", "word"),
        ("purpose=train, notices", "unknown word `True` in `notices`", "licence-copy"),
        ("purpose=train, jurisdiction=de", "`de` is no country", "did you mean `DE`?"),
        ("purpose=train, jurisdiction=UK", "`UK` is no country", "did you mean `GB`?"),
        ("purpose=train, jurisdiction=EU", "`EU` is no country", "ISO 3166"),
        ("purpose=train, jurisdiction=XX", "`XX` is no country", "ISO 3166"),
        ("purpose=train, competes-assessed-on=today", "`today` is no day", "YYYY-MM-DD"),
        ('purpose=train, competes-assessed-on="2026-02-30"', "is no day", "YYYY-MM-DD"),
        ('purpose=train, competes-assessed-on="2026-W01-1"', "is no day", "YYYY-MM-DD"),
        ("purpose=train, competes-assessed-on=@1", "is neither", "word"),
        ("purpose=train;x=1", "`purpose` is neither", "`purpose=word`"),
        ("purpose=train, purpose=data", "`purpose` is said twice", "once"),
        ("purpose=train,", "can't be read: ", "write it like"),
        ("Purpose=train", "can't be read: ", "write it like"),
        ("purpose=tr\x00`in", "`purpose=tr??in` can't be read", "write it like"),
        ("purpose=é", "`é` is not ASCII", "percent-encoded"),
        ("a" * (limits.DECLARATION_BYTES_MAX + 1), "4097 characters", "gateway use declare"),
        ("x" * 50 + "=1, purpose=train", "`" + "x" * 40 + "…`", "`"),
    ],
)
def test_a_bad_use_says_what_to_change(said: str, message: str, hint: str) -> None:
    """What can't be read is refused in the caller's words, with the next move."""
    with pytest.raises(MalformedDeclarationError) as caught:
        parse_use_header(said)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_use_is_never_read_from_an_id() -> None:
    """Where only a use can stand, an id is refused."""
    with pytest.raises(MalformedDeclarationError):
        parse_inline("use-0123456789abcdef0123")


def test_words_of_a_file_are_checked_alike() -> None:
    """Words that come from elsewhere are held to the same vocabulary."""
    assert use_of({"purpose": "verify", "competes": False}).competes is False
    with pytest.raises(MalformedDeclarationError, match="says nothing"):
        use_of({"purpose": 3})


def test_a_list_is_read_in_the_order_of_its_words() -> None:
    """The same notices are the same use, however often and in whichever order they are said."""
    one = parse_inline("purpose=publish.dataset, notices=(flow-down display display)")
    other = use_of({"purpose": "publish.dataset", "notices": ["display", "flow-down"]})

    assert one == other
    assert one.notices == ("display", "flow-down")
    assert parse_inline("purpose=publish.dataset, notices=()").notices == ()


def test_a_use_is_written_as_plainly_as_it_can_be() -> None:
    """Names are tokens, plain words strings, and the rest is percent-encoded."""
    use = IntendedUse(
        purpose="train.sft", competes=False, commercial=True, agreement="A 1", base_model="ü\n"
    )

    assert format_inline(use) == (
        'purpose=train.sft, competes=?0, commercial, base-model=%"%c3%bc%0a", agreement="A 1"'
    )


def test_what_no_header_carries_is_refused() -> None:
    """A text that is no Unicode can't be written."""
    with pytest.raises(MalformedDeclarationError, match="no header can carry"):
        format_inline(IntendedUse(purpose="verify", agreement="\ud800"))
