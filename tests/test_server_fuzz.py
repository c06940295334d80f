"""The server against what its own OpenAPI document allows, and forbids: every answer is one that the document tells."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import positive_data_acceptance

from conftest import small_model
from scaleseg.server import Limits, Settings, create_app
from serving import encoded, photo, served, serving

LIMITS = Limits(pixels=10_000, bytes=100_000, body_seconds=5.0)
MODELS = {"tiny": small_model(), "most": small_model("max")}

PICTURES = [
    encoded(photo(rows, columns), kind)
    for rows, columns, kind in ((5, 9, "PNG"), (40, 33, "JPEG"), (1, 1, "BMP"), (7, 3, "TIFF"), (3, 3, "WEBP"), (200, 200, "PNG"))
]  # fmt: skip
WHOLE = st.sampled_from(PICTURES)
CUT = st.tuples(WHOLE, st.integers(0, 120)).map(lambda pair: pair[0][: pair[1]])
schemathesis.openapi.format("binary", st.one_of(WHOLE, WHOLE, CUT, st.binary(max_size=64)))
for media in ("image/bmp", "image/tiff"):
    schemathesis.serializer(media)(lambda context, value: value)

SCHEMA = schemathesis.openapi.from_dict(create_app(served(MODELS), Settings(LIMITS)).document)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """A server of that document."""
    with serving(MODELS, Settings(LIMITS)) as (client, app):
        assert app.document == SCHEMA.raw_schema
        yield str(client.base_url).rstrip("/")


@SCHEMA.parametrize()
@settings(max_examples=80, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_an_answer_is_one_that_the_document_tells(case: schemathesis.Case, base_url: str) -> None:
    response = case.call(base_url=base_url)
    assert response.status_code < 500
    # What fits the document word by word may still be refused: weights that the fusion does not take, a damaged image.
    case.validate_response(response, excluded_checks=[positive_data_acceptance])


def test_the_document_is_valid_openapi() -> None:
    SCHEMA.validate()
