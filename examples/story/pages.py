"""Read the admin's pages as a person does: text, links, forms with their values, errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

__all__ = ["Form", "Page", "read_page"]

_ERROR_CLASSES: Final = {"errorlist", "errornote"}
_TICKED: Final = {"checkbox", "radio"}
_NO_TEXT: Final = {"script", "style", "option"}
_NEVER_CLOSED: Final = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}


@dataclass
class Form:
    """A form with its current values, its choices and its buttons."""

    action: str = ""
    method: str = "get"
    values: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, dict[str, str]] = field(default_factory=dict)  # label -> value, of selects
    buttons: list[str] = field(default_factory=list)


@dataclass
class Page:
    """The content of a page."""

    url: str
    status: int
    text: str
    links: list[tuple[str, str]]  # text and address
    forms: list[Form]
    errors: list[str]

    def form_with(self, button: str) -> Form | None:
        """Return the form with a button of this label, or `None`."""
        return next((form for form in self.forms if button in form.buttons), None)

    def link_ending(self, end: str) -> str | None:
        """Return the address of the first link that ends with `end`, or `None`."""
        return next((address for _, address in self.links if address.endswith(end)), None)


def read_page(url: str, status: int, html: str) -> Page:
    """Return the content of the HTML page at `url`."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return Page(
        url=url,
        status=status,
        text=_words(reader.texts),
        links=reader.links,
        forms=reader.forms,
        errors=[words for words in map(_words, reader.errors) if words],
    )


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.forms: list[Form] = []
        self.errors: list[list[str]] = []
        self._open: list[tuple[str, bool]] = []  # tag, and whether it is about errors
        self._form: Form | None = None
        self._select = self._textarea = ""
        self._option: str | None = None
        self._button = self._link = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        is_error = bool(_ERROR_CLASSES & set(given.get("class", "").split()))
        if tag not in _NEVER_CLOSED:
            self._open.append((tag, is_error))
        if is_error:
            self.errors.append([])
        if tag == "a":
            self.links.append(("", given.get("href", "")))
            self._link = True
        elif tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is not None:
            self._control(self._form, tag, given)

    def handle_endtag(self, tag: str) -> None:
        while self._open and any(name == tag for name, _ in self._open):
            name, _ = self._open.pop()
            if name == tag:
                break
        if tag == "form":
            self._form = None
        elif tag in {"select", "textarea"}:
            self._select = self._textarea = ""
        elif tag == "option":
            self._option = None
        elif tag == "button":
            self._button = False
        elif tag == "a":
            self._link = False

    def handle_data(self, data: str) -> None:
        if self._form is not None:
            self._fill(self._form, data)
        if self._link:
            text, address = self.links[-1]
            self.links[-1] = (text + data.strip(), address)
        tags = {name for name, _ in self._open}
        if tags & _NO_TEXT:
            return
        self.texts.append(data)
        if any(is_error for _, is_error in self._open):
            self.errors[-1].append(data)

    def _control(self, form: Form, tag: str, given: dict[str, str]) -> None:
        name, kind = given.get("name", ""), given.get("type", "text")
        if tag == "button":
            form.buttons.append("")
            self._button = True
        elif tag == "input" and kind == "submit":
            form.buttons.append(given.get("value", ""))
        elif tag == "input" and name and kind not in _TICKED:
            form.values.setdefault(name, []).append(given.get("value", ""))
        elif tag == "input" and name and "checked" in given:
            form.values.setdefault(name, []).append(given.get("value", "on"))
        elif tag == "textarea":
            self._textarea = name
            form.values[name] = [""]
        elif tag == "select":
            self._select = name
            form.choices[name] = {}
        elif tag == "option" and self._select:
            self._option = given.get("value", "")
            if "selected" in given or self._select not in form.values:
                form.values[self._select] = [self._option]  # the first one, unless another is

    def _fill(self, form: Form, data: str) -> None:
        if self._textarea:
            form.values[self._textarea][0] += data
        elif self._option is not None and data.strip():
            form.choices[self._select][data.strip()] = self._option
        elif self._button:
            form.buttons[-1] = f"{form.buttons[-1]} {data.strip()}".strip()


def _words(parts: Sequence[str]) -> str:
    def words() -> Iterator[str]:
        for part in parts:
            yield from part.split()

    return " ".join(words())
