"""Run a study again from its `study.json`, say first what is not as it was then, and afterwards which numbers moved.

`python studies/rerun.py results/bin_sweep/study.json` puts its results beside the first ones, in `results-rerun`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro
from pydantic import TypeAdapter, ValidationError

from analysis.agreement import describe_agreement
from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.provenance import differences
from studies.options import Outcome, run_script

STUDIES = {
    "bin_sweep": "BinSweep",
    "combinations": "Combinations",
    "dependency": "Dependency",
    "embedding_sources": "EmbeddingSources",
    "gene_properties": "GeneProperties",
    "loss_weights": "LossWeights",
    "methods": "Methods",
    "open_choices": "OpenChoices",
    "pretrain": "Pretrain",
    "search": "Search",
}
"""Script of each study, and the class of its options."""


@dataclass(frozen=True)
class Rerun:
    """Options."""

    record: tyro.conf.Positional[Path]
    """The study.json of the study to run again."""
    out: Path | None = None
    """Where results go; by default a folder beside the first one's, with `-rerun` behind its name."""
    screen: Path | None = None
    """Where the screen lies now, if it was moved."""
    embeddings: tuple[Path, ...] = ()
    """Where the embeddings lie now, if they were moved."""


def main(options: Rerun) -> Outcome:
    """Run the study again."""
    path = absolute(options.record)
    record = _read(path)
    script = import_module(f"studies.{record['study']}")
    first_out = path.parent.parent
    out = absolute(options.out, "--out") if options.out else first_out.with_name(f"{first_out.name}-rerun")
    if out == first_out:
        raise InputError(f"--out {out} holds the results to compare with: name another folder")
    again = _settings(getattr(script, STUDIES[record["study"]]), record, path)
    again = replace(again, out=out)
    if getattr(again, "store", None) == str(first_out / "stores"):
        again = replace(again, store="")
    moved = {"screen": options.screen and str(options.screen), "embeddings": options.embeddings}
    if strangers := [name for name, path in moved.items() if path and not hasattr(again, name)]:
        raise InputError(f"--{strangers[0]}: {record['study']} takes none, leave it out")
    again = replace(again, **{name: path for name, path in moved.items() if path})
    for line in differences(record):
        print(f"differs: {line}", flush=True)
    outcome: Outcome = script.main(again, record)
    agreement = list(describe_agreement(path.parent, out / record["study"]))
    for line in agreement:
        print(line)
    return Outcome(outcome.status, {**outcome.told, "agreement": agreement})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["study"] in STUDIES and isinstance(record["settings"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the record of a study ({error}): give a study.json") from error
    if not known:
        raise InputError(
            f"{path} is of the study {record['study']}, which is none of {', '.join(STUDIES)}: give one of these"
        )
    return record


def _settings(options_type: type[Any], record: Mapping[str, Any], path: Path) -> Any:
    """The options as they were; one that this version does not know would be left out in silence, and is refused."""
    if unknown := _unknown(options_type(), record["settings"]):
        raise InputError(
            f"{path} has settings that this version does not know: {', '.join(unknown)}; "
            f"install histpert {record.get('versions', {}).get('histpert')}"
        )
    try:
        return TypeAdapter(options_type).validate_python(record["settings"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: the setting {where} cannot be used ({first['msg']}): correct it there") from error


def _unknown(options: Any, settings: Mapping[str, Any], within: str = "") -> list[str]:
    known = {field.name: getattr(options, field.name) for field in fields(options)}
    found = [f"{within}{name}" for name in settings if name not in known]
    for name, value in settings.items():
        if isinstance(value, dict) and is_dataclass(known.get(name)):
            found += _unknown(known[name], value, f"{within}{name}.")
    return found


if __name__ == "__main__":
    run_script(Rerun, main, __doc__)
