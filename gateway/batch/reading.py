"""A form that may hand in lines, read while it comes."""

from __future__ import annotations

from gateway.batch.form import Form, NoFormError, Part
from gateway.provider.batch import Handing


class Reading:
    """A form that may hand in lines, while it comes."""

    def __init__(self, content_type: str, handing: Handing) -> None:
        self._handing = handing
        self.broken = ""
        """Why it is no form, or one that could be read in two ways."""
        self._told: str | None = None
        self._form: Form | None = None
        try:
            self._form = Form(content_type)
        except NoFormError as wrong:
            self.broken = str(wrong)

    @property
    def is_wanted(self) -> bool:
        """Whether it says that it hands in lines."""
        return self._told == self._handing.only[1]

    @property
    def is_other(self) -> bool:
        """Whether it says that it hands in something else, or nothing that can be read."""
        return not self.is_wanted and (self._told is not None or bool(self.broken))

    @property
    def may_hold_lines(self) -> bool:
        """Whether the part has begun that would hold them."""
        return self._form is not None and any(
            part.name == self._handing.part for part in self._form.parts
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._form is None or self.broken:
            return
        try:
            self._form.feed(chunk)
            self._tell(self._form)
        except NoFormError as wrong:
            self.broken = str(wrong)

    def finish(self) -> Part | None:
        """Take the end; return the part that holds the lines, if it is a form that has one."""
        if self._form is None or self.broken:
            return None
        try:
            self._form.finish()
            self._tell(self._form)
            part = self._form.part(self._handing.part)
        except NoFormError as wrong:
            self.broken = str(wrong)
            return None
        return part if self.is_wanted else None

    def _tell(self, form: Form) -> None:
        said = form.field(self._handing.only[0])
        if said is not None:
            self._told = said.decode("latin-1").strip()
