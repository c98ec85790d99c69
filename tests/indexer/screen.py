"""What a terminal shows after all that a program wrote to it: as much of one as our progress needs."""

import re

PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def read_screen(written: str, *, columns: int = 80) -> list[str]:
    """The lines that stand there in the end, trailing blanks cut off; too long ones go on in the next."""
    lines, row, column = [""], 0, 0
    for match in PIECE.finditer(written):
        parameters, command, back, new, text = match.groups()
        if command == "A":
            row = max(0, row - int(parameters or 1))
        elif command == "K":
            assert parameters == "2", "only whole lines are wiped"
            lines[row] = ""
        elif back:
            column = 0
        elif new:
            row, column = row + 1, 0
        for letter in text or "":
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + letter + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]
