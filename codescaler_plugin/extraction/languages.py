"""The languages whose programs can be told from other text.

To add a language, add a `Language` to `_TABLE`. Another distribution registers one with an entry point and depends on
the wheel of the grammar:

    [project.entry-points."codescaler_plugin.languages"]
    julia = "my_package:JULIA"  # JULIA = Language("julia", "tree_sitter_julia", aliases=("jl",))

Entry points are loaded when a caller asks for `any` or for a language that is not in the table, and not before.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from tree_sitter import Language as Grammar

from codescaler_plugin.errors import ConfigError, MissingExtraError
from codescaler_plugin.extraction import c_family
from codescaler_plugin.extraction.python import check_python
from codescaler_plugin.records import Status

ANY = "any"
"""As a caller's language: the language of the info string, else the first that reads the program."""

ENTRY_POINTS = "codescaler_plugin.languages"
_NAME = re.compile(r"[a-z0-9+#._-]+")


@dataclass(frozen=True)
class Language:
    """A language and the rule that says which texts are its programs.

    Attributes:
        name: lower-case name, as in the setting `language` and in `Extraction.language`.
        grammar: module of the tree-sitter grammar, imported on first use. Its wheel has the same name with hyphens.
        aliases: other names in info strings and file extensions, in lower case and without a version.
        functions: maps code to the functions of `grammar` that return a grammar for it, tried in order. The default
            is the function `language`.
        equivalent: rewrites a valid program that the grammar refuses into an equivalent that it parses. The default
            is no rewriting.
        idle_nodes: node types that do nothing, beside comments, literals and identifiers. A program of these alone is
            `trivial`.
        reads_tags: the grammar parses tags such as `<think>` as code.
        check: rule that replaces the grammar: maps code to its status and a clause that explains it.

    Raises:
        ConfigError: neither or both of `grammar` and `check`, or a name with other characters.

    Example:
        >>> Language("julia", "tree_sitter_julia", aliases=("jl",)).wheel
        'tree-sitter-julia'
    """

    name: str
    grammar: str = ""
    aliases: tuple[str, ...] = ()
    functions: Callable[[str], tuple[str, ...]] = lambda _: ("language",)
    equivalent: Callable[[str], str] | None = None
    idle_nodes: tuple[str, ...] = ()
    reads_tags: bool = False
    check: Callable[[str], tuple[Status, str]] | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if name == ANY or not _NAME.fullmatch(name):
                raise ConfigError(f"a language has the name {name!r}: expected lower-case letters, and not {ANY!r}")
        if bool(self.grammar) == (self.check is not None):
            raise ConfigError(f"language {self.name!r} needs either a grammar or a check")

    @property
    def wheel(self) -> str:
        """The distribution that holds the grammar; empty without one."""
        return self.grammar.partition(".")[0].replace("_", "-")


# An untagged program is tried in this order: a language stands before those that parse its programs as theirs.
# fmt: off
_TABLE = (
    Language("python", aliases=("py", "ipython", "cpython", "pypy"), check=check_python),
    Language("c", "tree_sitter_c", aliases=("h",),
             equivalent=partial(c_family.rewritten, rules=c_family.C), idle_nodes=("preproc_call",)),
    Language("cpp", "tree_sitter_cpp", aliases=("c++", "cc", "cxx", "g++", "hpp"),
             equivalent=partial(c_family.rewritten, rules=c_family.CPP), idle_nodes=("preproc_call",)),
    Language("java", "tree_sitter_java", idle_nodes=("package_declaration",)),
    Language("csharp", "tree_sitter_c_sharp", ("c#", "cs"), idle_nodes=("empty_statement",)),
    Language("javascript", "tree_sitter_javascript", aliases=("js", "jsx", "mjs", "node", "nodejs"),
             idle_nodes=("empty_statement", "hash_bang_line"), reads_tags=True),
    Language("typescript", "tree_sitter_typescript", aliases=("ts",),
             # The mark of JSX may stand in a string or a comment.
             functions=lambda code: ("language_tsx", "language_typescript") if "</" in code
             else ("language_typescript",), idle_nodes=("empty_statement", "hash_bang_line"), reads_tags=True),
    Language("go", "tree_sitter_go", ("golang",), idle_nodes=("empty_statement", "package_clause")),
    Language("rust", "tree_sitter_rust", ("rs",), idle_nodes=("empty_statement",)),
    # The grammar expects a line's end after the last member of a class.
    Language("kotlin", "tree_sitter_kotlin", ("kt", "kts"), equivalent=lambda code: code.replace("}", "\n}")),
    Language("php", "tree_sitter_php",
             functions=lambda code: ("language_php",) if "<?" in code else ("language_php_only",),
             idle_nodes=("empty_statement", "php_tag", "text"), reads_tags=True),
    Language("ruby", "tree_sitter_ruby", ("rb",), idle_nodes=("empty_statement",)),
)
# fmt: on
LANGUAGES = tuple(language.name for language in _TABLE)
"""Names of the languages in the table."""

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


@cache
def languages(registered: bool) -> dict[str, Language]:
    """The languages of the table by name, then those of entry points if `registered`.

    Raises:
        ConfigError: an entry point cannot be loaded, is not a `Language`, or takes a name of another language.
    """
    known = {language.name: language for language in _TABLE}
    if not registered:
        return known
    for entry in sorted(entry_points(group=ENTRY_POINTS)):
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        offender = f"language {entry.name!r} ({entry.value}) of {owner}"
        try:
            language = entry.load()
        except Exception as error:
            raise ConfigError(
                f"{offender} cannot be loaded: {type(error).__name__}: {error}. Repair or uninstall it"
            ) from error
        if not isinstance(language, Language):
            raise ConfigError(f"{offender} is a {type(language).__name__}: expected a codescaler_plugin.Language")
        if taken := _names(known).keys() & {language.name, *language.aliases}:
            raise ConfigError(
                f"{offender} takes the names {', '.join(sorted(taken))}, which another language has: uninstall it"
            )
        known[language.name] = language
    return known


def language_of(name: str) -> Language:
    """The language of a canonical name. Only a name that is not in the table loads the entry points."""
    return languages(name not in LANGUAGES)[name]


def _names(known: dict[str, Language]) -> dict[str, str]:
    return {name: language.name for language in known.values() for name in (language.name, *language.aliases)}


@cache
def _canonical_names(registered: bool) -> dict[str, str]:
    return _names(languages(registered))


def canonical(name: str, registered: bool = False) -> str:
    """The name of a language from a common one (`C++17`, `py3`, `main.rs`); an unknown name in lower case."""
    names = _canonical_names(registered)
    name = _SUFFIX.sub("", name.lower()) or name.lower()
    return names.get(name) or names.get(_VERSION.sub("", name)) or names.get(name.rpartition(".")[2]) or name


@lru_cache(4096)
def info_language(info: str, registered: bool = False) -> str:
    """The language of an info string such as `python title="a"`, `{.rust .numberLines}` or `C++`; empty if none."""
    known = languages(registered)
    info = _INVISIBLE.sub("", info[:100]).strip()
    attributes = dict(_ATTRIBUTE.findall(info))
    named = next((attributes[name] for name in _NAMING if name in attributes), "")
    rest = _DIRECTIVE.sub("", _ATTRIBUTE.sub("", info).strip("{} "), count=1)
    word, css, path = _WORD.match(named or rest), _CLASS.search(info), _PATH.search(rest)
    if path and _DRIVE.match(rest):  # a file and a line, as editors write them
        word = None
    names = [canonical(match[1], registered) for match in (word, css, path) if match]
    names += [canonical(name.partition("#")[0], registered) for name in names[:1] if name not in known]  # `python#1`
    return next((name for name in names if name in known), names[0] if names else "")


def checked_language(name: str) -> str:
    """The canonical name of a language that a caller asks for; an error if it is unknown or has no grammar here."""
    language = canonical(name) if isinstance(name, str) else ""
    known = languages(registered=language not in LANGUAGES)
    language = language and canonical(name, registered=len(known) > len(LANGUAGES))
    if language == ANY:
        return language
    if language not in known:
        raise ConfigError(f"language is {name!r}: expected one of {', '.join(known)}, or {ANY!r}")
    if not is_installed(language):
        raise MissingExtraError(
            f"language {name!r} needs its grammar: pip install {known[language].wheel}, "
            'or all of them: pip install "codescaler-plugin[languages]"'
        )
    return language


@cache
def is_installed(name: str) -> bool:
    """Whether this environment has what the language's rule needs."""
    language = language_of(name)
    return language.check is not None or find_spec(language.grammar) is not None


@cache
def grammar(module: str, function: str) -> Grammar:
    """The tree-sitter grammar that a function of a module returns; a `ConfigError` if it cannot be used."""
    try:
        return Grammar(getattr(import_module(module), function)())
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"grammar {module}.{function} cannot be used: {error}") from error
