"""The languages whose programs can be told from other text, their names in info strings, and their grammars."""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from tree_sitter import Language

from codescaler_plugin.errors import ConfigError, MissingExtraError

ANY = "any"
"""As a caller's language: whatever the info string says, else whatever the text turns out to be."""

# In the order in which an untagged program is tried: a language stands before those that read its programs as theirs.
_GRAMMARS = {
    "python": "",
    "c": "language",
    "cpp": "language",
    "java": "language",
    "csharp": "language",
    "javascript": "language",
    "typescript": "language_typescript",
    "go": "language",
    "rust": "language",
    "kotlin": "language",
    "php": "language_php",
    "ruby": "language",
}
LANGUAGES = tuple(_GRAMMARS)

_ALIASES = {
    "py": "python",
    "ipython": "python",
    "cpython": "python",
    "pypy": "python",
    "h": "c",
    "c++": "cpp",
    "cc": "cpp",
    "cxx": "cpp",
    "g++": "cpp",
    "hpp": "cpp",
    "c#": "csharp",
    "cs": "csharp",
    "js": "javascript",
    "jsx": "javascript",
    "mjs": "javascript",
    "node": "javascript",
    "nodejs": "javascript",
    "ts": "typescript",
    "golang": "go",
    "rs": "rust",
    "kt": "kotlin",
    "kts": "kotlin",
    "rb": "ruby",
} | {name: name for name in LANGUAGES}

# MyST's and reStructuredText's directives name the language behind them; HTML's class has a prefix.
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_DIRECTIVE = re.compile(r"\{?(?:code-cell|code-block|code|sourcecode)\}[\s]*")
_ATTRIBUTE = re.compile(r"(\w+)=[\"']?([^\s\"'}]+)[\"']?")
_NAMING = ("lang", "language", "class")
_CLASS = re.compile(r"(?:\A|[\s{])\.([\w+#-]+)")
_WORD = re.compile(r"[\s({\[<.'\"#!/]*(?:lang(?:uage)?-)?([\w+#.-]+)")
_PATH = re.compile(r"(?:\A|[/\\:])[\w.-]*\.(\w{1,10})[)}\]]*\Z")
_DRIVE = re.compile(r"(?:[A-Za-z]:\\|\d)")
_VERSION = re.compile(r"[-_]?\d[\d.]*x?$")
_SUFFIX = re.compile(r"[-_ ](?:code|script|program)$|[.-]+$")


def canonical(name: str) -> str:
    """The name in `LANGUAGES` for a usual one (`C++17`, `py3`, `main.rs`); an unknown one in lower case."""
    name = _SUFFIX.sub("", name.lower()) or name.lower()
    return _ALIASES.get(name) or _ALIASES.get(_VERSION.sub("", name)) or _ALIASES.get(name.rpartition(".")[2]) or name


@cache
def info_language(info: str) -> str:
    """The language of an info string such as `python title="a"`, `{.rust .numberLines}` or `C++`; empty if none."""
    info = _INVISIBLE.sub("", info[:100]).strip()
    attributes = dict(_ATTRIBUTE.findall(info))
    named = next((attributes[name] for name in _NAMING if name in attributes), "")
    rest = _DIRECTIVE.sub("", _ATTRIBUTE.sub("", info).strip("{} "), count=1)
    word, css, path = _WORD.match(named or rest), _CLASS.search(info), _PATH.search(rest)
    if path and _DRIVE.match(rest):  # a place in a file, as editors write it
        word = None
    found = [canonical(match[1]) for match in (word, css, path) if match]
    found += [canonical(name.partition("#")[0]) for name in found[:1] if name not in LANGUAGES]  # `python#1`
    return next((name for name in found if name in LANGUAGES), found[0] if found else "")


def checked_language(name: str) -> str:
    """The canonical name of a language that a caller asks for.

    Raises:
        ConfigError: the language is unknown.
        MissingExtraError: its grammar is not installed; the message names the wheel.
    """
    language = canonical(name) if isinstance(name, str) else ""
    if language != ANY and language not in LANGUAGES:
        raise ConfigError(f"language is {name!r}: expected one of {', '.join(LANGUAGES)}, or {ANY!r}")
    if language != ANY and not is_installed(language):
        raise MissingExtraError(
            f"language {name!r} needs its grammar: pip install {wheel(language)}, "
            'or all of them: pip install "codescaler-plugin[languages]"'
        )
    return language


def wheel(language: str) -> str:
    """The name of the package that holds a language's grammar."""
    return "tree-sitter-" + {"csharp": "c-sharp"}.get(language, language)


@cache
def is_installed(language: str) -> bool:
    """Whether programs of a language of `LANGUAGES` can be judged here. Python needs no grammar."""
    return language == "python" or find_spec(wheel(language).replace("-", "_")) is not None


@cache
def grammar(language: str, variant: str = "") -> Language:
    """The installed tree-sitter grammar of a language; `variant` names another function of its package."""
    module = import_module(wheel(language).replace("-", "_"))
    return Language(getattr(module, variant or _GRAMMARS[language])())
