"""The chat template of any policy, for families that `text.families` does not have.

Conversations of known words are rendered. The text around the words is the marks of the template.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from os.path import commonprefix
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.text import templates
from codescaler_plugin.text.templates import LAST, PREFILL, Template, start_of

Message = dict[str, Any]
Render = Callable[..., str]

_USER, _REPLY, _LATER, _SYSTEM = "QzUSERFIRSTzQ", "QzREPLYzQ", "QzUSERLATERzQ", "QzSYSTEMzQ"
_BOS, _EOS = "QzBOSzQ", "QzEOSzQ"  # stand-ins for special tokens that a Jinja file does not name
_THINKING = ({}, *({name: value} for name in ("enable_thinking", "thinking") for value in (True, False)))
_PIECE = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,40}\]|\s|[^<\[\s]+|[<\[]")
_WORDS = re.compile(r"[\w\s.,:;!?#*'\"()/-]+")
_ANY_MARK = r"(?:<[^<>\s]{1,40}>|\[[^\[\]\s]{1,20}\])?"


class _UnreadableError(Exception):
    """A template rendered something that does not divide turns; `template_of` turns it into a ConfigError."""


@lru_cache(maxsize=16)
def template_of(source: str) -> Template:
    """The template of a hub id, a directory with a tokenizer or a `chat_template.jinja`, or a Jinja file.

    Raises:
        ConfigError: there is no such tokenizer or template, it fails to render, or it writes no marks around turns.
    """
    policy = _policy(source)
    try:
        return _derived(source, _read(policy.render), policy)
    except _UnreadableError as error:
        raise ConfigError(
            f"prompt_template {source!r} cannot be read: {error}. Give a template that writes marks around a user's "
            "text, or none and the problem in a column"
        ) from error


@dataclass(frozen=True)
class _Policy:
    """A renderer of messages, its special tokens, and those that pad or begin a text. A Jinja file has no tokens."""

    render: Render
    special: tuple[str, ...] = ()
    pads: tuple[str, ...] = ()


def _policy(source: str) -> _Policy:
    path = Path(source)
    if path.is_dir() and not (path / "tokenizer_config.json").exists() and not (path / "tokenizer.json").exists():
        path /= "chat_template.jinja"
    if path.is_file() or source.endswith(".jinja") or path.name == "chat_template.jinja":
        return _Policy(_file_renderer(path))
    from transformers import AutoTokenizer

    from codescaler_plugin.pretrained import pretrained

    try:
        tokenizer = pretrained(AutoTokenizer, source)
        if not tokenizer.chat_template:
            raise ConfigError("it has no chat_template")
    except ConfigError as error:
        raise ConfigError(
            f"prompt_template {source!r} is no tokenizer with a chat template ({error}): expected a hub id, a "
            "directory with a tokenizer or a Jinja file"
        ) from error

    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    pads = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    return _Policy(
        partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True),
        tuple(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added])),
        tuple(str(token) for token in dict.fromkeys(pads) if token),
    )


def _file_renderer(path: Path) -> Render:
    """The renderer of a Jinja file. It runs in the Jinja sandbox of transformers, because the file is not trusted."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"prompt_template {str(path)!r} cannot be read ({error}): expected a hub id, a directory with a tokenizer "
            "or a Jinja file"
        ) from error

    def render(messages: list[Message], add_generation_prompt: bool = True, **settings: bool) -> str:
        texts, _ = render_jinja_template(
            [messages],
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            bos_token=_BOS,
            eos_token=_EOS,
            **settings,
        )
        return str(texts[0])

    return render


@dataclass(frozen=True)
class _Marks:
    """The texts that a template writes around those of users and assistants."""

    prefix: str  # before the only user turn
    prefixes: tuple[str, ...]  # `prefix` with every thinking setting
    system: tuple[str, str] | None  # before a system text, and behind it; None if the template refuses or moves it
    reply: str  # between a user's text and the reply to it
    later: str  # between a reply and the user's next text
    closings: tuple[str, ...]  # behind the last user's text: the generation prompt of every thinking setting
    plain: str  # behind the last user's text without a generation prompt
    alternates: bool  # the template refuses two user turns in a row

    def without(self, special: tuple[str, ...]) -> "_Marks":
        tokens = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        bare = partial(tokens.sub, "")
        return _Marks(
            prefix=bare(self.prefix),
            prefixes=tuple(dict.fromkeys(map(bare, self.prefixes))),
            system=self.system and (bare(self.system[0]), bare(self.system[1])),
            reply=bare(self.reply),
            later=bare(self.later),
            closings=tuple(dict.fromkeys(map(bare, self.closings))),
            plain=bare(self.plain),
            alternates=True,  # a line `user` in a problem is likelier than two user turns in a row
        )


def _read(render: Render) -> _Marks:
    alone, dialogue = [("user", _USER)], [("user", _USER), ("assistant", _REPLY), ("user", _LATER)]
    rendered: list[tuple[dict[str, bool], list[str], list[str]]] = []
    faults: list[Exception] = []
    for settings in _THINKING:
        try:
            rendered.append((settings, _cut(render, alone, **settings), _cut(render, dialogue, **settings)))
        except Exception as error:  # noqa: BLE001 - a template raises anything, also where it needs a setting
            faults.append(error)
    if not rendered:
        raise _UnreadableError(str(faults[0]))
    settings, (prefix, _), (_, reply, later, _) = rendered[0]
    with_system = _tried(render, [("system", _SYSTEM), ("user", _USER)], **settings)
    plain = _tried(render, alone, add_generation_prompt=False, **settings)
    return _Marks(
        prefix=prefix,
        prefixes=tuple(dict.fromkeys(first[0] for _, *both in rendered for first in both)),
        system=(with_system[0], with_system[1]) if with_system and _visible(with_system[1]) else None,
        reply=reply,
        later=later,
        closings=tuple(dict.fromkeys(parts[-1] for _, *both in rendered for parts in both)),
        plain=plain[-1] if plain else "",
        alternates=_tried(render, [*dialogue[:1], *dialogue[::-1]], **settings) is None,
    )


def _tried(render: Render, turns: list[tuple[str, str]], **settings: bool) -> list[str] | None:
    """`_cut`, or None if the template refuses the conversation."""
    try:
        return _cut(render, turns, **settings)
    except Exception:  # noqa: BLE001 - a template raises anything
        return None


def _cut(render: Render, turns: Sequence[tuple[str, str]], **settings: bool) -> list[str]:
    """The rendered text before, between and behind the texts of n turns: n + 1 strings."""
    texts = [text for _, text in turns]
    shapes: list[Callable[[str], Any]] = [str, lambda text: [{"type": "text", "text": text}]]
    results: list[str] = []
    for content in shapes:  # templates of models that read images may expect a list
        try:
            results.append(render([{"role": role, "content": content(text)} for role, text in turns], **settings))
        except Exception as error:  # noqa: BLE001 - a template raises anything
            results.append(f"{type(error).__name__}: {error}")
        if re.findall("|".join(texts), results[-1]) == texts:
            return re.split("|".join(texts), results[-1])
    raise _UnreadableError(
        f"{' and '.join(texts)} of {', '.join(role for role, _ in turns)} rendered as {results[0][:400]!r}, expected "
        "each text once and in order"
    )


def _derived(source: str, marks: _Marks, policy: _Policy) -> Template:
    """The template with these marks, and its form without special tokens if that still divides turns."""
    # A token that begins every turn, as Seed's beginning of a text, does not count as padding.
    pads = [token for token in policy.pads if token not in marks.prefix or token not in marks.later]
    padding = templates.padding_of("|".join([templates.PADDING_MARKS, _BOS, *map(re.escape, pads)]))
    template = _built(source, marks, padding)
    bare = marks.without(policy.special) if policy.special else marks
    if (bare.prefix, bare.reply, bare.later) == (marks.prefix, marks.reply, marks.later):
        return template
    if all(map(_divides, (bare.prefix, bare.later, *_replies(bare)))):
        return replace(template, bare=_built(f"{source} without special tokens", bare, padding, bare=True))
    if not _visible(bare.prefix) or not all(map(_visible, bare.closings)):
        return template
    start, ends = _pattern(bare.prefix.lstrip()), "|".join(map(_pattern, bare.closings))
    return replace(template, vague=re.compile(rf"\s*+{start}[\s\S]*(?:{ends})\s{{0,4}}\Z"))


def _built(name: str, marks: _Marks, padding: re.Pattern[str], bare: bool = False) -> Template:
    replies = _replies(marks)
    around = {"before a user's text": [marks.prefix], "between turns": [marks.later], "behind a user's text": replies}
    for where, texts in around.items():
        if not all(_visible(text) or _BOS in text for text in texts):
            raise _UnreadableError(f"it writes {texts[0]!r} {where}, expected marks")
    prefix = _behind(padding, marks.prefix)
    prefixes = [_behind(padding, text) for text in marks.prefixes]
    headers = [_pattern(text) for text in prefixes if text] or [rf"(?<={re.escape(marks.prefix.strip())})"]
    later, loose = [marks.later], False
    if marks.system:
        before, between = _behind(padding, marks.system[0]), _pattern(marks.system[1])
        if before.startswith(prefix) and before != prefix:  # the system text is in the user's turn
            headers.insert(0, rf"{_pattern(before)}[\s\S]*?{between}")
        elif _visible(before):
            headers.append(rf"{_pattern(_first(before))}[\s\S]*?{between}")
        else:  # only the beginning of the text stands before the system text
            later, loose = [marks.later, marks.system[1]], True
    header = _shared_end(prefix, marks.later)
    if _visible(header) and header != prefix:  # a system text of its own, with a date or an effort in it
        headers.append(rf"{_pattern(_first(prefix))}[\s\S]*?{_pattern(header)}")
    user, reply, closing = (
        "|".join(sorted(map(_pattern, texts), key=len, reverse=True)) for texts in (later, replies, marks.closings)
    )
    plain = _pattern(marks.plain) if _visible(marks.plain) else ""
    ends = _PIECE.findall(marks.later)[:1]
    marked = any(_is_mark(piece) for text in replies for piece in _PIECE.findall(text))
    return Template(
        name=name,
        padding=padding,
        opening=re.compile(rf"(?P<user>{'|'.join(headers)})"),
        boundary=re.compile(rf"(?P<user>(?:{user})(?!<tool_response>))|(?P<reply>{reply})"),
        last=re.compile(rf"(?:{plain}){LAST}"),
        closing=re.compile(rf"(?:{reply}){PREFILL}|(?:{closing})\s{{0,4}}\Z"),
        reply=re.compile(reply),
        alternates=marks.alternates,
        loose=loose,
        closed=bare or not marked,
        prose=not marked,
        ends=templates.ends_of("|".join([templates.END_MARKS, *map(re.escape, filter(_is_mark, ends))])),
    )


def _replies(marks: _Marks) -> list[str]:
    """The texts between a user's text and a reply, without a prefilled beginning of the reply."""
    shared = [(closing, _shared(marks.reply, closing)) for closing in marks.closings]
    return list(dict.fromkeys(text if _visible(text) else closing for closing, text in shared))


def _behind(padding: re.Pattern[str], text: str) -> str:
    return text[start_of(text, padding) :]


def _visible(text: str) -> bool:
    return bool(text.replace(_BOS, "").replace(_EOS, "").strip())


def _divides(text: str) -> bool:
    """Whether a text stands out from the words around it: it holds a mark or a line end."""
    return _visible(text) and ("\n" in text or any(map(_is_mark, _PIECE.findall(text))))


def _is_mark(piece: str) -> bool:
    return not _WORDS.fullmatch(piece)


def _shared(*texts: str) -> str:
    return "".join(commonprefix([_PIECE.findall(text) for text in texts]))  # noqa: RUF071 - of pieces


def _shared_end(*texts: str) -> str:
    return "".join(commonprefix([_PIECE.findall(text)[::-1] for text in texts])[::-1])  # noqa: RUF071 - of pieces


def _first(text: str) -> str:
    """The marks at the beginning of a text, or else its first word and the white space behind it."""
    pieces = _PIECE.findall(text)
    marks = next((index for index, piece in enumerate(pieces) if not _is_mark(piece)), len(pieces))
    return "".join(pieces[: marks or 2])


def _pattern(text: str) -> str:
    """The regular expression of a text. An unknown special token stands for any mark or none."""
    return re.escape(text).replace(_BOS, _ANY_MARK).replace(_EOS, _ANY_MARK)
