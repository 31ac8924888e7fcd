"""Lines of text in a picture that are cut to the room they have."""

from __future__ import annotations

_DOTS = "\u2026"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Measure a line of text as it will be drawn, in points; `size` is the font's."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def shortened(text: str, size: float, width: float, weight: str = "normal") -> str:
    """Take letters out of the middle until a line fits; names often differ at their ends."""
    text = _clean(text)
    if text_width(text, size, weight) <= width:
        return text
    left, right = "", ""
    for turn in range(len(text)):
        grown = (
            (left + text[len(left)], right)
            if turn % 2 == 0
            else (left, text[len(text) - len(right) - 1] + right)
        )
        if text_width(grown[0] + _DOTS + grown[1], size, weight) > width:
            break
        left, right = grown
    return left + _DOTS + right


def wrapped(text: str, size: float, width: float, most: int) -> list[str]:
    """Break a text into at most so many lines, behind a space or a mark where there is one."""
    rest = _clean(text)
    lines: list[str] = []
    while rest and len(lines) < most - 1 and text_width(rest, size) > width:
        count = 1
        while text_width(rest[: count + 1], size) <= width:
            count += 1
        marks = [i for i in range(count // 2, count) if not rest[i].isalnum()]
        cut = marks[-1] + 1 if marks else count
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*lines, shortened(rest, size, width)]


def _clean(text: str) -> str:
    """Make one line of printable letters: others have no picture, and no place in an SVG."""
    return "".join(x if x.isprintable() else " " for x in text).strip()
