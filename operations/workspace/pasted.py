"""The mistakes of a configuration, with lines to paste: commands of `make` for the environment."""

from __future__ import annotations

import re
import shlex

from stack.common.mistakes import InvalidSettingsError, Mistake

_CONFIG = "pulumi config "
_SCALAR = re.compile(r"(samokoder:[A-Za-z0-9_.\-]+): ([^\s{}\[\]'\"<>|&;()$`\\#*?!~]+)")
_SECRET = "config set --secret "  # noqa: S105 - words of a command


def mistakes_to_fix(error: InvalidSettingsError) -> str:
    """Return every mistake with the commands that a person types in a shell of this clone."""
    blocks = [str(error).partition("\n")[0]]
    blocks += [_block(error.stack, mistake) for mistake in error.mistakes]
    if any(_SECRET in block for block in blocks):
        blocks.append(
            "A secret's value is asked for and not echoed; it is also taken from standard input: "
            f"make pulumi ENV={error.stack} ARGS=… < file"
        )
    return "\n\n".join(blocks)


def _block(environment: str, mistake: Mistake) -> str:
    lines = "\n".join(command(environment, line) for line in mistake.example.splitlines())
    return str(Mistake(mistake.key, mistake.given, mistake.allowed, lines))


def command(environment: str, example: str) -> str:
    """Return the line of `make` for an example: a command of Pulumi, or one setting with a single value.

    Any other example stays as it is: what has several values is written into the stack file.
    """
    if example.startswith(_CONFIG):
        words = shlex.split(example.removeprefix("pulumi "))
    elif setting := _SCALAR.fullmatch(example):
        path = ["--path"] if "." in setting[1] else []
        # Without this type Pulumi would write the text "0.5", which is no number.
        path += ["--type", "float"] if re.fullmatch(r"-?[0-9]+\.[0-9]+", setting[2]) else []
        words = ["config", "set", *path, setting[1], *(["--"] if setting[2].startswith("-") else []), setting[2]]
    else:
        return example
    # `…` stands for what the person fills in, so it is not quoted for a shell.
    typed = " ".join(word if re.fullmatch(r"[\w@%+=:,./…-]+", word) else shlex.quote(word) for word in words)
    quote = '"' if "'" in typed else "'"
    return f"make pulumi ENV={environment} ARGS={quote}{typed}{quote}"
