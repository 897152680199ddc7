"""A secret is taken out however it is spelt: as Python, JSON, an address or a form spells it, and in a notebook around that."""

import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from sqlalchemy import URL

from chartinsight_lib.running.secrecy import redact

SECRET = "canary+a/b \"c\" 'd'\\e&f=한글@g"
SPELT = {
    "plain": SECRET,
    "quoted": quote(SECRET),
    "quoted with slashes": quote(SECRET, safe=""),
    "a form's": urlencode({"key": SECRET}),
    "of a search": quote_plus(SECRET),
    "SQLAlchemy's": URL.create("postgresql", "user", SECRET, "host").render_as_string(hide_password=False),
    "Python's": repr({"key": SECRET}),
    "JSON's": json.dumps({"key": SECRET}),
    "JSON's with its letters": json.dumps({"key": SECRET}, ensure_ascii=False),
}


@pytest.mark.parametrize("spelt", SPELT.values(), ids=list(SPELT))
@pytest.mark.parametrize("letters", [True, False], ids=["written in ASCII", "written as it is"])
def test_a_secret_is_taken_out_in_every_spelling_also_where_a_notebook_is_around_it(spelt, letters):
    notebook = json.dumps({"text": [f"it is {spelt} here"]}, ensure_ascii=letters)
    for text in (spelt, notebook):
        clean, found = redact(text, {"THE_KEY": SECRET})
        assert found == {"THE_KEY"}
        assert "canary" not in clean
    assert json.loads(redact(notebook, {"THE_KEY": SECRET})[0])["text"][0].startswith("it is ")
