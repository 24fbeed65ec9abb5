"""Names of the columns of a table, by the lines above it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.block import Block
from exafsd.documents.files.cells import separated
from exafsd.documents.files.table import File, columns_by_role, is_unit
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

#: characters of a line of a header that may name columns
LONGEST_LINE = 4096
#: what is a unit and no name of a column
BARE_UNITS = {"ev", "kev", "deg", "degree", "degrees", "mdeg", "rad"}
#: columns that XDI may number
MOST_COLUMNS = 4096
#: begins a scan in a SPEC file, and names its columns
SPEC_SCAN, SPEC_LABELS = "#S ", "#L "
#: a line for each column: Column 2: I0
LISTED_COLUMN = re.compile(r"\W*col(?:umn)?\W*(\d+)\s*[:=]\s*(\S.*)", re.IGNORECASE)
#: what may stand before the names in a line of labels
LABELS_FOLLOW = re.compile(r"(?:column\s+)?(?:columns?|labels?|names?|headings?)\s*[:=]\s*", re.I)
#: words that prose has, and a line of labels has not
PROSE = re.compile(
    r"an|and|are|as|at|be|but|by|for|from|has|have|in|is|no|not|of|off|on|or|that|the|then|there|this"
    r"|to|versus|vs|was|were|when|with|without|.*[:?]",
    re.IGNORECASE,
)
#: Names of columns that people write as several words. Where single blanks separate the names, such
#: words could be taken for two columns, and shift the names after them.
PHRASE = re.compile(
    r"\b(?:(?:scaler|detector)\s)?(?:"
    r"(?:acq\w*|clock|count(?:ing)?|dead|dwell|elapsed|exposure|integration|live|measurement|preset"
    r"|real|sample|scan)\stime(?:\sclock)?"
    r"|(?:achieved|actual|beam|dcm|mono|monochromator|nominal|photon|requested|set|x-?ray)\senergy"
    r"|(?:bragg|dcm|encoder|mono|monochromator|motor|sample|stage)\s(?:angle|pos|position)"
    r"|(?:beam|machine|ring|sr|storage)\scurrent|ioni?[sz]?\w*\schamber)\b",
    re.IGNORECASE,
)


def labels_of(block: Block, file: File) -> list[str]:
    """Names of the columns of a block by the lines above it.

    The last line that names energy and a signal counts; else a list with a line for each column;
    else what Larch knows of the beamline that wrote the file; else the last line, if it has as many
    words as there are columns.
    """
    labels = label_line(block, file.adapter)
    if labels:
        _check_below(labels, block, file)
        return labels
    listed = {
        item[1]: item[2] for line in block.header if (item := LISTED_COLUMN.match(line)) is not None
    }
    if set(listed) == {str(n + 1) for n in range(block.width)}:
        names, own = numbered_columns(listed, file.adapter)
        return [f"{n} ({own[n].strip('()[] ')})" if n in own else n for n in names]
    # Larch takes seconds to import, and few headers need it
    from larch.io.xafs_beamlines import GenericBeamlineData, guess_beamline

    header = [line for line in block.header if re.search(r"[^\W_]", line)]
    beamline: Any = guess_beamline(header)
    if beamline is not GenericBeamlineData:
        with suppress(Exception):  # Larch's classes raise whatever a header makes them hit
            return [str(label) for label in beamline(header).get_array_labels()]
    if header:
        ways = ways_to_split(header[-1], block.delimiter)
        fitting = [n for n in ways if len(n) == block.width and not _is_prose(n)]
        if fitting:
            return fitting[0]
    # two columns without any words are energy and mu; beside words nobody can say
    unnamed = "column " if header else "col"
    return [f"{unnamed}{i + 1}" for i in range(block.width)]


def label_line(block: Block, adapter: Adapter) -> list[str]:
    """Names in the last line of the header that names energy and a signal; none where none does."""
    for line in reversed(block.header):
        names = names_in(line, block, adapter)
        if names:
            return names
        if line.startswith((SPEC_SCAN, SPEC_LABELS)):
            return []  # what is above is of another scan
    return []


def names_in(line: str, block: Block, adapter: Adapter) -> list[str]:
    """Names of columns in a line, if it names energy and a signal and is no prose.

    Where wide blanks and single ones separate differently, the wide ones count, unless all words
    between them are names of the adapter's: with ``Mono pos  I0  It`` over four columns it is not
    clear whether one of them has no name.
    """
    ways = [names for names in ways_to_split(line, block.delimiter) if are_labels(names, adapter)]
    if not ways:
        return []
    wide, single = ways[0], ways[-1]
    apart = len(ways) > 1 or line.startswith(SPEC_LABELS) or re.search(r"[,;\t]", line)
    if len(wide) == block.width and apart:
        return wide  # as, in and no are names there, of elements and numbers
    if _is_prose(single):
        return []
    if len(wide) == block.width or len(single) != block.width:
        return wide
    several = [words for name in wide if len(words := _words(name)) > 1]
    plain = all(columns_by_role([word], adapter) for words in several for word in words)
    return single if plain else wide


def _is_prose(names: list[str]) -> bool:
    """Whether words of prose are among names."""
    return any(map(PROSE.fullmatch, names))


def _check_below(labels: list[str], block: Block, file: File) -> None:
    """Refuse a line of labels that is followed by another with a word for every column."""
    for line in reversed(block.header):
        if names_in(line, block, file.adapter):
            return
        for words in ways_to_split(line, block.delimiter):
            letters = [word for word in words if re.search(r"[^\W\d_]", word)]
            named = len(words) == block.width and 2 * len(letters) > block.width
            if named and not _is_prose(words) and not any(map(is_unit, letters)):
                raise SpectrumError(
                    Reason.AMBIGUOUS_COLUMNS,
                    f"{file.path}: {' '.join(labels)!r} and, below it, {' '.join(words)!r} both"
                    " have a word for every column: which are their names? Take out the other line",
                )


def are_labels(names: list[str], adapter: Adapter) -> bool:
    """Whether they name energy and a signal."""
    roles = columns_by_role(names, adapter)
    return "energy" in roles and len(roles) > 1


def ways_to_split(line: str, delimiter: str) -> list[list[str]]:
    """Ways to split a line into names: as the rows are, else at commas, wide blanks or at all.

    A unit in brackets is never a name of its own. SPEC has two blanks between names.
    """
    if len(line) > LONGEST_LINE:
        return []
    spec = line.startswith(SPEC_LABELS)
    line = re.sub(r"^(?:#[LC]\s|[#;!%*<C]+\s)?[#;!%*<\s]*", "", line).strip()
    line = LABELS_FOLLOW.sub("", line, count=1) if LABELS_FOLLOW.match(line) else line
    for sign in (delimiter, ",", ";"):
        if sign != " " and sign in line:
            return [separated(line, sign)]
    wide = re.split(r"\s{2,}|\t", line)
    if spec and len(wide) > 1:
        return [wide]
    single = _words(line)
    return [wide, single] if len(wide) > 1 else [single]


def _words(text: str) -> list[str]:
    """Words between blanks; a unit in brackets and a name of several words are one."""
    text = PHRASE.sub(lambda name: re.sub(r"\s", "_", name[0]), text)
    return re.findall(r"[^\s(\[]\S*(?:\s+[(\[][^)\]]*[)\]])?", text)


def numbered_columns(
    listed: Mapping[str, str], adapter: Adapter
) -> tuple[list[str], dict[str, str]]:
    """Names of the numbered columns, and units by name.

    Words after a signal's name that are no unit belong to its name: ``mu reference`` is not mu.
    """
    names: dict[int, str] = {}
    units: dict[str, str] = {}
    for number, text in listed.items():
        if not re.fullmatch(r"[0-9]{1,4}", number) or not 0 < int(number) <= MOST_COLUMNS:
            continue
        # beamlines add the channel's name to the unit, or a remark: eV || 13BMA:E:Energy
        words = re.split(r"\|\||\s#", text)[0].split(maxsplit=1) or [f"col{number}"]
        role = next(iter(columns_by_role(words[:1], adapter)), None)
        if words[1:] and role not in (None, "energy") and not is_unit(words[1]):
            words = [" ".join(words)]
        names[int(number)] = words[0]
        if words[1:]:
            units[words[0]] = words[1]
    return [names.get(n + 1, f"col{n + 1}") for n in range(max(names, default=0))], units


def mismatch(path: Path, block: Block, labels: list[str]) -> SpectrumError:
    """Error of names that do not fit the columns of a block."""
    cells = next(row for row in block.rows if len(row) == block.width)
    units = [label for label in labels if label.lower() in BARE_UNITS]
    if units and len(labels) == block.width:
        return SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{path}: {units[0]!r} stands among the names of the columns ({', '.join(labels)}): is"
            " it a unit? Write it in brackets, or take it out",
        )
    return SpectrumError(
        Reason.AMBIGUOUS_COLUMNS,
        f"{path} names {len(labels)} columns ({', '.join(labels)}), and has {block.width} columns"
        f" ({', '.join(cells[:8])} ...): it is not clear which name is whose. Correct the header",
    )
