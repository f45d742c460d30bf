"What the contract says, for tests that fit any problem: fields by what they are, a value that each refuses, the score of an answer."
from typing import Any

from og_project.data.contract import EXAMPLE, TASK, Answer, Record
from og_project.lifecycle.gate import DECIDING  # noqa: F401 - the metric that decides
from og_project.model.estimator import SCORE
from og_project.serving.journal import demo_outcomes
from og_project.store import properties

PROPERTIES = properties(Record)  # name -> JSON schema, may it be missing?
VALUE = SCORE[0]  # the answer's field that holds the (first) score
ONE, OTHER = demo_outcomes(2)  # two outcomes that differ
BINARY = TASK == "binary"


def named(*kinds: str, **having: Any) -> list[str]:
    "The fields of the example that are of one of these types (`choice`, `text`, `date-time`, or as JSON schema says)."
    found = []
    for name, (spec, nullable) in PROPERTIES.items():
        kind = "choice" if "enum" in spec else spec.get("format") or ("text" if spec["type"] == "string" else spec["type"])
        if name in EXAMPLE and kind in kinds and all((nullable if key == "nullable" else key in spec) == value for key, value in having.items()):
            found.append(name)
    return found


LIMITED = [*named("number", maximum=True, nullable=True), *named("number", "integer", maximum=True)][0]  # a number with an upper limit
TOO_MUCH = PROPERTIES[LIMITED][0]["maximum"] + 1
REQUIRED = next(name for name, (_, nullable) in PROPERTIES.items() if not nullable)
INNER = sorted(set(Answer.model_fields) - {"id"})
