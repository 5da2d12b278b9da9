"""Bodies of requests: every field says how far it is served, and names that nobody knows are refused."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

Status = Literal["implemented", "deviates", "extension", "no effect", "refused"]
"""`extension`: not in OpenAI's API. `no effect`: accepted, and says nothing here. `refused`: only null, or what is as
good as null, is taken."""


def field(status: Status, note: str, default: Any = None, **limits: Any) -> Any:
    """A field of a body. `note` is its description, in OpenAPI and in docs/server.md."""
    return Field(default, description=note, json_schema_extra={"x-offramp": status}, **limits)


def status_of(field: FieldInfo) -> str:
    """How far a field is served."""
    extra = field.json_schema_extra
    return str(extra["x-offramp"]) if isinstance(extra, dict) and "x-offramp" in extra else "implemented"


class Body(BaseModel):
    """A JSON object whose names are all known, and whose values have the types they should have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=False)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known_names = {info.alias or name: info for name, info in cls.model_fields.items()}
        for name, value in data.items():
            known = known_names.get(name)
            if known is None:
                near = get_close_matches(str(name), known_names, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else f"; allowed: {', '.join(known_names)}"
                raise _fault(name, f"unknown field `{name}`{hint}")
            if value and status_of(known) == "refused":
                raise _fault(name, f"`{name}` is not supported: {known.description}")
        # What is as good as null passes as null.
        refused = {name for name in data if status_of(known_names[name]) == "refused"}
        return {name: None if name in refused else value for name, value in data.items()}


def table(model: type[BaseModel], beside: type[BaseModel] = BaseModel) -> str:
    """The fields of a body as a Markdown table, but for those that it shares with `beside`."""
    own = {name: info for name, info in model.model_fields.items() if name not in beside.model_fields}
    rows = [f"| `{name}` | {status_of(info)} | {info.description or ''} |" for name, info in own.items()]
    return "\n".join(["| field | | |", "|---|---|---|", *rows])


def _fault(name: Any, message: str) -> PydanticCustomError:
    return PydanticCustomError("field_name", "{message}", {"name": str(name), "message": message})
