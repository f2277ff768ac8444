"""Texts that a fuzzer makes of the pieces in which extraction and rendering could stumble."""

import atheris

PIECES = [
    "```",
    "~~~",
    "````",
    "python",
    "c++",
    "rust",
    "java",
    "go",
    "js",
    ">",
    "-",
    "1.",
    "<think>",
    "</think>",
    "<answer>",
    "<|im_end|>",
    "<|im_start|>",
    "<|im_",
    "user",
    "x=1",
    "def",
    "class",
    "return",
    "pass",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "'''",
    '"""',
    "\\",
    "#",
    "#define",
    "A(x)",
    "A(",
    "lambda:",
    "not",
    "f'{",
    "if",
    "else",
    "int",
    "main()",
    ";",
    "<",
    "a<",
    "::",
    "=>",
    "->",
    "||",
    "&",
    "!",
    "?",
    ",",
    ".",
    "@",
    "=",
    "+",
    "*",
    "/",
    "/*",
    "*/",
    "//",
    "<?php",
    "for",
    "while",
    "do",
    "end",
    "fn",
    "func",
    "case",
    "match",
    "###",
    "Format:",
    "###",
    "Answer:",
    "###",
    "Question:",
]
PIECES += [
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "    ",
    "\t",
    " ",
    "> ",
    "- ",
    "1. ",
    "\0",
    "\ufeff",
    "\ud800",
    "é",
    "\u2028",
    "\f",
]
PIECES += [
    *("[THINK]", "[/THINK]", "<|channel|>", "analysis", "final", "commentary", "<|message|>", "<|start|>assistant"),
    *(
        "assistantfinal",
        "<channel|>",
        "<reasoning>",
        "</reasoning>",
        "<code>",
        "</code>",
        "</answer>",
        "\\boxed{",
        "$",
    ),
    *(
        "[INST]",
        "[/INST]",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
        "</s>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "[|user|]",
    ),
    *(
        "<start_of_turn>",
        "<end_of_turn>",
        "model",
        "system",
        "### Instruction:\n",
        "- [ ] ",
        "<|constrain|>",
        "{code-cell}",
    ),
]
PIECES += ["```python\nx = 1\n```\n", "match x:\n case ", "int main() {", "x if y else "]


def text_of(data: atheris.FuzzedDataProvider, longest: int) -> str:
    """Pieces and random letters; a piece, or the last few, may be repeated up to the greatest length."""
    text: list[str] = []
    length = 0
    while data.remaining_bytes() and length < longest:
        new = PIECES[data.ConsumeIntInRange(0, len(PIECES) - 1)]
        kind = data.ConsumeIntInRange(0, 8)
        if kind == 0:
            new = data.ConsumeUnicode(data.ConsumeIntInRange(0, 20))
        elif kind == 1:
            new *= data.ConsumeIntInRange(1, 2000)
        elif kind == 2:
            new = ("".join(text[-3:])[-100:] + new) * data.ConsumeIntInRange(1, 500)
        text.append(new[: longest - length])
        length += len(text[-1])
    return "".join(text)
