"""The OpenAPI document as a page: HTML without a script, for the server's own policy lets none in from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["docs_page"]


def docs_page(document: Mapping[str, Any]) -> str:
    """All of the document that a person wants to read: routes, parameters, answers."""
    info = document["info"]
    routes = "".join(
        _route(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return _PAGE.format(
        title=escape(f"{info['title']} {info['version']}"), summary=escape(info["summary"]), routes=routes
    )


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2>", _paragraph(operation["summary"])]
    parts.append(_paragraph(operation.get("description", "")))
    if operation.get("security"):
        parts.append(_paragraph("Needs the token: Authorization: Bearer ..."))
    if "requestBody" in operation:
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in operation["requestBody"]["content"])
        parts.append(f"<p>Body: {kinds}</p>")
    if "parameters" in operation:
        rows = [
            (_code(given["name"]), _values(given["schema"]), escape(given["description"]))
            for given in operation["parameters"]
        ]
        parts.append(_table("Parameters in the query, all optional", ("name", "values", "meaning"), rows))
    rows = [
        (_code(status), ", ".join(map(_code, answer.get("content", {}))), escape(answer["description"]))
        for status, answer in operation["responses"].items()
    ]
    parts.append(_table("Answers", ("status", "type", "meaning"), rows))
    return f"<section>{''.join(parts)}</section>"


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    inner = schema.get("items", schema)
    return ", ".join(f"such as {_code(example)}" for example in inner.get("examples", ())) or "text"


def _table(caption: str, head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _code(text: str) -> str:
    return f"<code>{escape(str(text))}</code>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/static/docs.css">
</head>
<body>
<main>
<h1>{title}</h1>
<p>{summary}</p>
<p>For programs: <a href="/openapi.json">openapi.json</a>. For people: <a href="/">the viewer</a>.</p>
<pre><code>curl -F image=@photo.jpg 'http://127.0.0.1:8000/v1/segment?output=mask' -o mask.png
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\
     'http://127.0.0.1:8000/v1/segment?output=json&amp;pixel=120,64'</code></pre>
{routes}
<p>What is refused is told as <code>{{"error": "..."}}</code>: what was given, what is accepted, what to do.</p>
</main>
</body>
</html>
"""
