"""The connection form of Airflow before 3.2; later versions read it from the provider info."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from airflow_jobs_provider import connection_form

__all__ = ["connection_form_widgets", "ui_field_behaviour"]


def connection_form_widgets() -> dict[str, Any]:
    """Return the form's fields for the connection's extra, by name."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    kinds: dict[str, Callable[..., Any]] = {
        "password": partial(PasswordField, widget=BS3PasswordFieldWidget()),
        "string": partial(StringField, widget=BS3TextFieldWidget()),
        "integer": partial(IntegerField, widget=BS3TextFieldWidget(), validators=[Optional()]),
        "boolean": partial(BooleanField, default=False),
    }
    return {
        name: kinds[kind](lazy_gettext(label), description=description)
        for name, (kind, label, description) in connection_form.EXTRA_FIELDS.items()
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return which standard fields the form hides, and what it calls the others."""
    return {
        "hidden_fields": connection_form.HIDDEN_FIELDS,
        "relabeling": connection_form.RELABELING,
        "placeholders": connection_form.PLACEHOLDERS,
    }
