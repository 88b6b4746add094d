"""What all settings share: they are frozen, refuse unknown keys, and hold references to secrets, never secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|keyvault:[A-Za-z0-9-]{1,127}(/[A-Za-z0-9]{1,64})?")


class Settings(BaseModel):
    """A table of the routes file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # one validator for the whole file, when it is read, in place of one for each table
    )

    @classmethod
    def contradiction(cls, given: Mapping[str, Any]) -> str | None:
        """What keys say against each other, in a table as it was written: its values may be of any type."""
        return None

    @model_validator(mode="wrap")
    @classmethod
    def _with_contradiction(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Both are told: what is wrong with single keys, and what they say against each other."""
        wrong = cls.contradiction(given) if isinstance(given, Mapping) else None
        if wrong is None:
            return check(given)
        errors = [InitErrorDetails(type=PydanticCustomError("contradiction", "{wrong}", {"wrong": wrong}), input=given)]
        try:
            check(given)
        except ValidationError as refused:
            errors = [*map(_again, refused.errors(include_url=False)), *errors]
        raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)


def _again(error: ErrorDetails) -> InitErrorDetails:
    """An error that is raised once more, in company."""
    told = PydanticCustomError(error["type"], "{told}", {**error.get("ctx", {}), "told": error["msg"]})
    return InitErrorDetails(type=told, loc=error["loc"], input=error["input"])


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError("write a reference to the secret, env:NAME or keyvault:name, never the secret itself")
    return value


SecretReference = Annotated[str, AfterValidator(_reference)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
