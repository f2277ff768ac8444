"""A chat template, described by the marks that it writes around turns.

`text.families` has the templates of public model families and needs no tokenizer. `text.derivation` reads the marks
off text that the policy's own tokenizer or Jinja template renders. `text.turns` undoes either.
"""

import re
from dataclasses import dataclass

PADDING_MARKS = (  # before the first turn; hosts such as OpenRLHF up to 0.5 pad with them on the left
    r"<(?:/?s|bos|eos|pad|unk|sop|PAD|BOS_TOKEN|EOS_TOKEN|seed:pad|begin_of_document|"
    r"\|(?:begin_?of_?text|end_?of_?text|startoftext|eot_id|eot|im_end|finetune_right_pad(?:_id)?|pad|bos|eos)\||"
    r"｜(?:hy_)?(?:begin▁of▁sentence|end▁of▁sentence|▁pad▁)｜)>|\[(?:PAD|BOS|gMASK)\](?:sop)?|\]~!b\["
)
LAST = r"\s{0,8}(?:(?:</s>|<eos>|<\|endoftext\|>|<｜end▁of▁sentence｜>)\s{0,8})?\Z"  # without a generation prompt
PREFILL = (  # a generation prompt may begin the reply with these
    r"(?:\s{0,4}(?:</?(?:seed:)?think>|<seed:cot_budget_reflect>|<\|channel>thought\n<channel\|>|"
    r"<\|START_(?:RESPONSE|THINKING)\|>|<\|END_THINKING\|>)){0,4}\s{0,4}\Z"
)
END_MARKS = (
    r"<\|[\w.:/-]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|\[\|[a-z_]{2,30}\|\]|</s>|<(?:eo[shmapdct]|EO[DT]|eot_id|end_of_message|pad|PAD|unk)>|"
    r"<end_of_(?:turn|utterance|sentence|text)>|<turn\|>|<channel\|>|<end_code>|<EOS_TOKEN>|<seed:(?:eos|pad)>|"
    r"<(?:reserved_|unused|extra_id_|SPECIAL_)\d{1,4}>|\[(?:EOS|PAD|/INST)\]|\[e~\["
)


@dataclass(frozen=True)
class Template:
    """The marks of one chat template."""

    name: str  # of the family, or the source that the template was derived from
    padding: re.Pattern[str]  # before the first turn
    # The first header of a text. Its group `user`, `reply`, `other` or `lead` (a system text without a header) names
    # the turn.
    opening: re.Pattern[str]
    boundary: re.Pattern[str]  # end of a turn with the next header, with the same groups
    last: re.Pattern[str]  # end of the last turn, at the end of a text without a generation prompt
    closing: re.Pattern[str]  # generation prompt at the end of a text
    reply: re.Pattern[str]  # header of an assistant's turn, for texts that are cut from the left
    ends: re.Pattern[str]  # marks at the end of a text that do not belong to the reply
    needs: re.Pattern[str] | None = None  # must follow the first header, where others or prose have the same header
    system: re.Pattern[str] | None = None  # system text at the beginning of a user's turn
    shy: bool = False  # prose has the marks: a text without one of its beginning must end with a generation prompt
    alternates: bool = False  # it refuses two user turns in a row: a user's header inside a user's turn is text
    loose: bool = False  # a text that ends with a generation prompt may begin with anything
    closed: bool = False  # only a text that ends with a generation prompt is of this template
    prose: bool = False  # the marks are common in prose, so they do not make another text suspicious
    bare: "Template | None" = None  # the template as decoded without special tokens
    vague: re.Pattern[str] | None = None  # text without special tokens whose turns cannot be told apart

    @property
    def forms(self) -> tuple["Template", ...]:
        """The template, and its form without special tokens if there is one."""
        return (self,) if self.bare is None else (self, self.bare)


def padding_of(marks: str) -> re.Pattern[str]:
    """The pattern of all padding before the first turn, from that of its marks."""
    return re.compile(rf"\s*+(?:(?:{marks})\s*+)*+")


def ends_of(marks: str) -> re.Pattern[str]:
    """The pattern of all marks behind a reply, from that of one mark."""
    return re.compile(rf"(?:(?:{marks})\s*+)++\Z")


def start_of(text: str, padding: re.Pattern[str]) -> int:
    """The offset at which the first turn may begin."""
    marks = padding.match(text)
    return marks.end() if marks else 0


PADDING = padding_of(PADDING_MARKS)
ENDS = ends_of(END_MARKS)
