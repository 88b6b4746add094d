"""What all settings share: they are frozen, refuse unknown keys, and hold references to secrets, never secrets."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError("write a reference to the secret, env:NAME or keyvault:name, never the secret itself")
    return value


SecretReference = Annotated[str, AfterValidator(_reference)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
