"""The server's answers: each equals what the library says, and each mistake is one sentence with the right status."""

import asyncio
import io
import json
import os
import socket
import struct
import time
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load as load_tensors

import scaleseg
from conftest import CLASSES, small_model
from scaleseg.engines import TorchEngine
from scaleseg.errors import UserError
from scaleseg.geometry import resize
from scaleseg.server import Limits, Server, Settings, hosts_of, name_models, open_socket
from scaleseg.server.answers import Answer, answer
from scaleseg.server.log import log
from scaleseg.server.places import Places
from scaleseg.server.prometheus import Meter
from scaleseg.server.refusal import Refusal
from scaleseg.server.watch import Watch
from serving import encoded, photo, serving

MODELS = {"tiny": small_model(), "most": small_model("max", seed=1)}
LIMITS = Limits(bytes=200_000, pixels=100_000, body_seconds=0.7, refined_bytes=16 * 3 * 4000)
PHOTO = photo()
PNG = encoded(PHOTO)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[httpx2.Client, Server]]:
    """A server with two tiny models, low limits, and the names of loopback."""
    with serving(MODELS, Settings(LIMITS, hosts=hosts_of("127.0.0.1", loopback=True))) as pair:
        yield pair


@pytest.fixture
def client(running: tuple[httpx2.Client, Server]) -> httpx2.Client:
    return running[0]


def post(client: httpx2.Client, content: bytes = PNG, name: str = "photo.png", **query: object) -> httpx2.Response:
    """The image as the file of a form."""
    return client.post("/v1/segment", params=query, files={"image": (name, content)})


def refusal(response: httpx2.Response) -> str:
    """The one sentence of an answer that is no result."""
    found = response.json()
    assert list(found) == ["error"]
    assert "\n" not in found["error"]
    assert "Traceback" not in found["error"]
    assert "site-packages" not in response.text
    return found["error"]


def expected(model: str = "tiny", **options: object) -> scaleseg.Segmentation:
    return scaleseg.segment(MODELS[model], PHOTO, precision="float32", **options)


def test_a_mask_is_the_librarys_with_its_palette(client: httpx2.Client) -> None:
    response = post(client)
    image = Image.open(io.BytesIO(response.content))
    assert response.headers["content-type"] == "image/png"
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), expected().labels.numpy())
    assert len(np.unique(np.asarray(image))) > 1


@pytest.mark.parametrize(("output", "drawn"), [("overlay", "overlay"), ("weights", "weights_image")])
def test_a_drawing_is_the_librarys(client: httpx2.Client, output: str, drawn: str) -> None:
    image = Image.open(io.BytesIO(post(client, output=output).content))
    assert np.array_equal(np.asarray(image), np.asarray(getattr(expected(), drawn)()))


def test_the_body_itself_may_be_the_image(client: httpx2.Client) -> None:
    response = client.post("/v1/segment", content=PNG, headers={"Content-Type": "image/png"})
    assert response.content == post(client).content


def test_another_model_is_asked_by_its_name(client: httpx2.Client) -> None:
    image = Image.open(io.BytesIO(post(client, model="most").content))
    assert np.array_equal(np.asarray(image), expected("most").labels.numpy())


def test_json_says_shares_and_mean_weights(client: httpx2.Client) -> None:
    found, said = post(client, output="json").json(), expected()
    assert found["size"] == list(PHOTO.shape[:2])
    assert found["classes"] == list(CLASSES)
    assert found["scales"] == [1.0, 0.5]
    assert found["shares"] == pytest.approx(said.shares())
    assert found["mean_weights"] == pytest.approx(said.scale_weights.mean(dim=(1, 2)).tolist(), rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(40, 57), (33, 33), (90, 7)])
def test_a_pixels_numbers_are_those_of_the_scores_at_the_images_size(
    client: httpx2.Client, model: str, size: tuple[int, int]
) -> None:
    pixels = photo(*size)
    prediction = TorchEngine(MODELS[model], "float32")(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
    where = [(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)]
    asked = [("output", "json"), ("model", model), *(("pixel", f"{row},{column}") for row, column in where)]
    response = client.post("/v1/segment", params=asked, files={"image": ("a.png", encoded(pixels))})
    said = scaleseg.segment(MODELS[model], pixels, precision="float32")
    alone = [prediction.grid.to_image(scores)[0].softmax(dim=0) for scores in prediction.per_scale]
    merged = prediction.at()[0].softmax(dim=0)
    for found, (row, column) in zip(response.json()["pixels"], where, strict=True):
        assert (found["row"], found["column"]) == (row, column)
        assert found["label"] == CLASSES[said.labels[row, column]]
        assert list(found["probabilities"].values()) == pytest.approx(merged[:, row, column].tolist(), abs=1e-6)
        assert found["weights"] == pytest.approx(said.scale_weights[:, row, column].tolist(), abs=1e-6)
        for one, scale in zip(found["per_scale"], alone, strict=True):
            assert list(one["probabilities"].values()) == pytest.approx(scale[:, row, column].tolist(), abs=1e-6)
            assert one["label"] == CLASSES[int(scale[:, row, column].argmax())]


@pytest.mark.parametrize("fusion", ["average", "max"])
def test_another_fusion_is_that_of_a_model_made_with_it(client: httpx2.Client, fusion: str) -> None:
    other = small_model(fusion)
    own = {name: value for name, value in MODELS["tiny"].state_dict().items() if not name.startswith("fusion.")}
    other.load_state_dict(own)
    said = scaleseg.segment(other, PHOTO, precision="float32")
    arrays = np.load(io.BytesIO(post(client, fusion=fusion, output="npz").content))
    assert np.array_equal(arrays["labels"], said.labels.numpy())
    assert arrays["scale_weights"] == pytest.approx(said.scale_weights.numpy())


def test_weights_by_hand_are_divided_by_their_sum_and_fused_by_equation_1(client: httpx2.Client) -> None:
    arrays = np.load(io.BytesIO(post(client, fusion="weights", weights="3,1", output="npz").content))
    fine, coarse = (torch.from_numpy(arrays[f"per_scale_{index}"])[None] for index in (0, 1))
    size = (fine.shape[2], fine.shape[3])
    by_hand = 0.75 * fine + 0.25 * torch.nn.functional.interpolate(
        coarse, size=size, mode="bilinear", align_corners=True
    )
    assert MODELS["tiny"].segmenter.align_corners
    assert arrays["scores"] == pytest.approx(by_hand[0].numpy(), abs=1e-5)
    assert arrays["scale_weights"] == pytest.approx(np.full(arrays["scale_weights"].shape, [[[0.75]], [[0.25]]]))


def test_all_weight_on_one_scale_says_what_that_scale_says(client: httpx2.Client) -> None:
    arrays = np.load(io.BytesIO(post(client, fusion="weights", weights="1,0", output="npz").content))
    assert arrays["scores"] == pytest.approx(arrays["per_scale_0"])


def test_trained_weights_times_scores_are_the_scores(client: httpx2.Client) -> None:
    arrays = np.load(io.BytesIO(post(client, output="npz").content))
    size = arrays["scores"].shape[1:]
    maps = [torch.from_numpy(arrays[f"per_scale_{index}"])[None] for index in (0, 1)]
    stack = torch.stack([resize(one, size, align_corners=True)[0] for one in maps])
    assert (torch.from_numpy(arrays["weights"]) * stack).sum(dim=0).numpy() == pytest.approx(arrays["scores"], abs=1e-5)


@pytest.mark.parametrize("refine", ["crf", "domain"])
def test_refinement_is_the_librarys(client: httpx2.Client, refine: str) -> None:
    response = post(client, refine=refine, output="npz")
    assert np.array_equal(np.load(io.BytesIO(response.content))["labels"], expected(refine=refine).labels.numpy())


def test_a_refined_pixels_probabilities_are_the_refinements(client: httpx2.Client) -> None:
    found = post(client, refine="domain", output="json", pixel="7,9").json()["pixels"][0]
    model = MODELS["tiny"]
    prediction = TorchEngine(model, "float32")(torch.from_numpy(PHOTO.transpose(2, 0, 1).copy()))
    refine = scaleseg.segmentation.choose_refine(model, "domain")
    whole = scaleseg.segmentation.at_image(prediction, expected().image, refine)
    assert list(found["probabilities"].values()) == pytest.approx(whole[:, 7, 9].tolist(), abs=1e-6)


def test_npz_holds_no_pickle_and_the_types_that_are_promised(client: httpx2.Client) -> None:
    arrays = np.load(io.BytesIO(post(client, output="npz").content), allow_pickle=False)
    kinds = {name: (arrays[name].dtype.name, arrays[name].ndim) for name in arrays}
    assert kinds == {
        "labels": ("uint8", 2), "scale_weights": ("float32", 3), "scores": ("float32", 3), "weights": ("float32", 4),
        "per_scale_0": ("float32", 3), "per_scale_1": ("float32", 3),
    }  # fmt: skip


def test_safetensors_hold_the_trained_maps_whatever_fusion_the_labels_have(client: httpx2.Client, tmp_path) -> None:
    content = post(client, fusion="max", output="safetensors").content
    tensors, trained = load_tensors(content), np.load(io.BytesIO(post(client, output="npz").content))
    assert np.array_equal(tensors["weights"].numpy(), trained["weights"])
    assert np.array_equal(tensors["per_scale.1"].numpy(), trained["per_scale_1"])
    labels = np.load(io.BytesIO(post(client, fusion="max", output="npz").content))["labels"]
    assert np.array_equal(tensors["labels"].numpy(), labels)
    (tmp_path / "a").write_bytes(content)
    with safe_open(tmp_path / "a", "np") as file:
        about = file.metadata()
    grid = MODELS["tiny"].grid(PHOTO.shape[:2])
    sizes = [json.loads(about[key]) for key in ("image", "padded", "fused")]
    assert sizes == [list(grid.image), list(grid.padded), list(grid.fused)]
    assert json.loads(about["align_corners"]) is grid.align_corners
    said = [about[key] for key in ("model", "fusion", "refine", "note")]
    assert said == ["tiny", "max", "none", ""]


def test_models_are_described_without_a_path(client: httpx2.Client) -> None:
    found = client.get("/v1/models").json()
    first, second = found["models"]
    assert (first["name"], first["fusion"], first["weights_per_class"]) == ("tiny", "attention", False)
    assert (second["name"], second["fusion"], second["weights_per_class"]) == ("most", "max", True)
    assert first["colours"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert first["refinements"] == ["none", "crf", "domain"]
    assert found["limits"] == {"bytes": LIMITS.bytes, "pixels": LIMITS.pixels}
    assert found["token_required"] is False
    assert found["version"] == scaleseg.__version__


def test_samples_are_jpeg_that_can_be_segmented_and_credited(client: httpx2.Client) -> None:
    pytest.importorskip("skimage")
    samples = client.get("/v1/models").json()["samples"]
    assert [sample["name"] for sample in samples] == ["cat", "astronaut", "coffee"]
    assert all("Photograph by" in sample["credit"] for sample in samples)
    assert Image.open(io.BytesIO(client.get("/samples/cat.jpg").content)).format == "JPEG"


def test_names_of_models_are_unique_and_say_nothing_of_where_they_lie(tmp_path) -> None:
    for path in ("a/cats/best", "b/cats/best", "c/dogs"):
        (tmp_path / path).mkdir(parents=True)
    given = [str(tmp_path / path) for path in ("a/cats/best", "b/cats/best", "c/dogs")]
    names = name_models([*given, "voc-animals-lite", "org/model"])
    assert names == ["cats/best-1", "cats/best-2", "dogs", "voc-animals-lite", "org/model"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels, all of them there once unpacked."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + width // 8)) for _ in range(min(height, 100))) + packed.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


FILES = {
    "cut short": (PNG[: len(PNG) // 2], 400, "photo.png cannot be decoded"),
    "a header alone": (PNG[:20], 400, "photo.png cannot be read"),
    "empty": (b"", 400, "photo.png is empty"),
    "text": (b"no image at all", 415, "give JPEG, PNG, WebP, BMP or TIFF"),
    "GIF": (encoded(PHOTO[..., 0], "GIF"), 415, "convert GIF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "is no image"),
    "a bomb": (bomb(12_000, 12_000), 413, "photo.png is 12000 x 12000 pixels; at most 100,000 are taken here"),
    "more than Pillow opens": (bomb(60_000, 60_000), 413, "more pixels than are taken here"),
    "too many pixels": (encoded(np.zeros((400, 400), np.uint8)), 413, "photo.png is 400 x 400 pixels"),
    "too many bytes": (PNG + bytes(LIMITS.bytes), 413, "more than 200,000 bytes"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_cannot_be_used_is_told_in_a_sentence(client: httpx2.Client, kind: str) -> None:
    content, status, sentence = FILES[kind]
    response = post(client, content)
    assert response.status_code == status, response.text
    assert sentence in refusal(response)


QUERIES = {
    "an unknown output": ({"output": "maks"}, 400, "output is 'maks'; did you mean 'mask'?"),
    "an unknown fusion": ({"fusion": "mean"}, 400, "fusion is 'mean'"),
    "an unknown refinement": ({"refine": "sharp"}, 400, "refine is 'sharp'"),
    "a refinement that this model cannot do": ({"refine": "domain-learned"}, 400, "choose crf, domain or none"),
    "an unknown model": ({"model": "/etc/passwd"}, 404, "model is '/etc/passwd'; choose most or tiny"),
    "an unknown parameter": ({"fussion": "max"}, 400, "did you mean 'fusion'?"),
    "a parameter twice": ({"output": ["mask", "json"]}, 400, "output is given 2 times"),
    "weights without their fusion": ({"weights": "1,0"}, 400, "give fusion=weights"),
    "the fusion without weights": ({"fusion": "weights"}, 400, "give 2 numbers"),
    "too few weights": ({"fusion": "weights", "weights": "1"}, 400, "give 2 numbers"),
    "a negative weight": ({"fusion": "weights", "weights": "1,-1"}, 400, "of 0 or more"),
    "no weight": ({"fusion": "weights", "weights": "0,0.0"}, 400, "weights are all 0"),
    "NaN": ({"fusion": "weights", "weights": "nan,1"}, 400, "give 2 numbers"),
    "other digits": ({"fusion": "weights", "weights": "\u0661,1"}, 400, "give 2 numbers"),
    "a pixel with a mask": ({"pixel": "1,1"}, 400, "give output=json"),
    "a pixel that is none": ({"output": "json", "pixel": "1"}, 400, "give a row and a column"),
    "a pixel outside": ({"output": "json", "pixel": "40,0"}, 400, "photo.png has 40 rows and 57 columns"),
    "too many pixels": ({"output": "json", "pixel": ["1,1"] * 101}, 400, "at most 100 times"),
}


@pytest.mark.parametrize("kind", QUERIES)
def test_a_query_that_cannot_be_used_is_told_in_a_sentence(client: httpx2.Client, kind: str) -> None:
    query, status, sentence = QUERIES[kind]
    response = post(client, **query)
    assert response.status_code == status
    assert sentence in refusal(response)


FORMS = {
    "no image": ({"data": {"other": "1"}, "files": {"nothing": b""}}, 400, "the form has a field"),
    "text in the field": ({"data": {"image": "hello"}, "files": {"image": b"x"}}, 400, "2 fields image"),
    "two images": ({"files": [("image", PNG), ("image", PNG)]}, 400, "2 fields image; give one file a request"),
    "three images": ({"files": [("image", PNG)] * 3}, 400, "give one file in the field image"),
    "another field": ({"data": {"output": "json"}, "files": {"image": PNG}}, 400, "the rest in the query"),
    "a form that is none": (
        {"content": b"xyz", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
        400,
        "form",
    ),
    "a charset whose codec fails": (
        {
            "content": b'--a\r\nContent-Disposition: form-data; name="image"; filename="b"\r\n\r\nx\r\n--a--\r\n',
            "headers": {"Content-Type": "multipart/form-data; boundary=a; charset=undefined"},
        },
        400,
        "the form cannot be read",
    ),
    "no boundary": ({"content": PNG, "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    "JSON": ({"json": {"image": "x"}}, 415, "Content-Type is 'application/json'"),
    "nothing": ({}, 415, "there is no Content-Type"),
    "an empty body": ({"content": b"", "headers": {"Content-Type": "image/png"}}, 400, "the image is empty"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_body_that_cannot_be_used_is_told_in_a_sentence(client: httpx2.Client, kind: str) -> None:
    options, status, sentence = FORMS[kind]
    response = client.post("/v1/segment", **options)
    assert response.status_code == status, response.text
    assert sentence in refusal(response)


def test_a_files_name_is_said_back_without_folders_and_without_orders_to_a_terminal(client: httpx2.Client) -> None:
    assert refusal(post(client, b"x", "C:\\private\\cat.png")).startswith("cat.png is no image")
    assert "\x1b" not in refusal(post(client, b"x", "\x1b[31mred.png"))
    assert len(refusal(post(client, b"x", "a" * 5000))) < 300


def test_a_large_image_is_segmented_and_not_refined(client: httpx2.Client) -> None:
    large = encoded(photo(100, 100))
    assert post(client, large).status_code == 200
    response = post(client, large, refine="crf")
    assert response.status_code == 413
    assert "at most 4,000 are refined here" in refusal(response)


PATHS = [
    "/static/..%2f..%2f..%2f..%2fetc%2fpasswd", "/static/../../../etc/passwd", "/static/%2e%2e/app.py", "//etc/passwd",
    "/static/app.py", "/static/", "/samples/..%2fapp.py", "/samples/cat.png", "/static/viewer.css%00.png", "/nothing",
    "/v1", "/v1/segment/", "/docs/oauth2-redirect",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_in_the_table_is_not_there(running: tuple[httpx2.Client, Server], path: str) -> None:
    status, body = raw(running[0], f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status == 404
    assert b"root:" not in body
    assert list(json.loads(body)) == ["error"]


def raw(client: httpx2.Client, request: bytes) -> tuple[int, bytes]:
    """What comes back for bytes that no client would send, up to the end of the connection."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


NO_HTTP = [
    b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]  # fmt: skip


@pytest.mark.parametrize("request_", NO_HTTP, ids=str)
def test_what_is_no_http_is_answered_like_all_else(
    client: httpx2.Client, capfd: pytest.CaptureFixture[str], request_: bytes
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(request_)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-security-policy: default-src 'none'" in head
    assert list(json.loads(body)) == ["error"]
    assert capfd.readouterr().err == ""


def test_what_is_no_http_after_an_answer_ends_the_connection_alone(
    client: httpx2.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"zz\r\n")
        assert b"HTTP/1.1" not in connection.makefile("rb").read()
    assert capfd.readouterr().err == ""


def test_a_method_that_a_path_has_not_is_told_with_those_that_it_has(client: httpx2.Client) -> None:
    for method, path, allowed in (("GET", "/v1/segment", "POST"), ("DELETE", "/v1/models", "GET")):
        response = client.request(method, path)
        assert response.status_code == 405
        assert allowed in response.headers["allow"]
        assert "is not done here" in refusal(response)


def test_a_body_that_comes_too_slowly_is_given_up(running: tuple[httpx2.Client, Server]) -> None:
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n"
    status, body = raw(running[0], head + b"Connection: close\r\n\r\n" + PNG[:10])
    assert status == 408
    assert "took more than 0.7 s" in json.loads(body)["error"]
    assert running[1].places.uploading == 0


def test_bytes_are_counted_where_no_length_is_announced(client: httpx2.Client) -> None:
    pieces = (bytes(50_000) for _ in range(6))
    response = client.post("/v1/segment", content=pieces, headers={"Content-Type": "image/png"})
    assert response.status_code == 413
    assert "more than 200,000 bytes" in refusal(response)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1@evil", "["]
)
def test_another_hosts_name_is_refused(client: httpx2.Client, host: str) -> None:
    response = client.get("/v1/models", headers={"Host": host})
    assert response.status_code == 421
    assert "--allow-host" in refusal(response)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_loopbacks_own_names_are_answered(client: httpx2.Client, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


FOREIGN = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_gets_nothing_done(client: httpx2.Client, headers: dict[str, str]) -> None:
    response = client.post("/v1/segment", files={"image": PNG}, headers=headers)
    assert response.status_code == 403
    assert "another site" in refusal(response)


def test_the_servers_own_page_may_ask(client: httpx2.Client) -> None:
    origin = str(client.base_url).rstrip("/")
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/segment", files={"image": PNG}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/models", "/nothing"])
def test_every_answer_has_the_strict_headers(client: httpx2.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


@pytest.fixture(scope="module")
def guarded() -> Iterator[httpx2.Client]:
    """A server that wants a token."""
    with serving({"tiny": MODELS["tiny"]}, Settings(token="correct-horse")) as (client, _):
        yield client


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("Bearer wrong", 401), ("Bearer", 401), ("correct-horse", 401), ("Basic correct-horse", 401),
        ("Bearer correct-hors", 401), ("Bearer \u00e4", 401), ("Bearer correct-horse", 200), ("bearer correct-horse", 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_a_token_is_wanted_where_there_is_one(
    guarded: httpx2.Client, header: str | None, status: int, path: str
) -> None:
    response = guarded.get(path, headers={} if header is None else {"Authorization": header.encode("latin-1")})
    assert response.status_code == status
    assert (response.headers.get("www-authenticate") is not None) == (status == 401)
    assert "correct-horse" not in response.text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/healthz"])
def test_without_the_token_nothing_is_said_of_the_models(guarded: httpx2.Client, path: str) -> None:
    response = guarded.get(path)
    assert response.status_code == 200
    assert "tiny" not in response.text


def test_an_image_without_the_token_is_not_looked_at(guarded: httpx2.Client) -> None:
    assert post(guarded).status_code == 401


def test_one_bad_image_among_many_harms_no_other(client: httpx2.Client) -> None:
    good = post(client).content
    contents = [PNG, PNG[:90], b"x", PNG, bomb(9000, 9000), PNG, b"", PNG] * 3
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda content: post(client, content), contents))
    assert [response.content == good for response in responses] == [content == PNG for content in contents]


def test_healthz_and_metrics_count(running: tuple[httpx2.Client, Server]) -> None:
    client, _ = running
    before = metrics(client)
    post(client)
    post(client, b"x")
    client.get(f"/{time.time()}")
    after = metrics(client)
    for key, more in (
        ('scaleseg_requests_total{route="/v1/segment",status="200"}', 1),
        ('scaleseg_requests_total{route="/v1/segment",status="415"}', 1),
        ('scaleseg_requests_total{route="other",status="404"}', 1),
        ('scaleseg_images_total{model="tiny"}', 1),
        ('scaleseg_request_seconds_count{route="/v1/segment"}', 2),
    ):
        assert after.get(key, 0) - before.get(key, 0) == more
    assert after["scaleseg_queue_depth"] == 0
    assert after["scaleseg_body_bytes"] == 0
    assert after["process_resident_memory_bytes"] > 50e6


def metrics(client: httpx2.Client) -> dict[str, float]:
    """Every line that is no comment."""
    lines = (line for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_programmers_mistake_is_500_and_told_to_the_log_alone(
    running: tuple[httpx2.Client, Server], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client, app = running

    def fail(*_: object) -> str:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(app.meter, "text", fail)
    response = client.get("/metrics")
    assert response.status_code == 500
    assert "secret" not in refusal(response)
    assert response.headers["x-content-type-options"] == "nosniff"
    wait_until(lambda: "/secret/path" in capfd.readouterr().err)  # the log is written after the answer


def test_a_mistake_at_one_image_leaves_the_threads_at_work(
    running: tuple[httpx2.Client, Server], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client, _ = running

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/path")

    for module in ("pipeline.read_picture", "pipeline.fuse_again", "pipeline.answer"):
        with monkeypatch.context() as patch:
            patch.setattr(f"scaleseg.server.{module}", fail)
            response = post(client)
        assert response.status_code == 500
        assert "secret" not in refusal(response)
        assert post(client).status_code == 200
    assert capfd.readouterr().err.count("RuntimeError: /secret/path\n") == 3


def test_what_an_answer_was_made_of_is_free_once_it_is_sent(
    running: tuple[httpx2.Client, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[object]] = []

    def watched(*arguments: object) -> Answer:
        made = answer(*arguments)  # type: ignore[arg-type]
        seen.extend(weakref.ref(one) for one in (arguments[3], made))
        return made

    monkeypatch.setattr("scaleseg.server.pipeline.answer", watched)
    assert post(running[0], output="npz").status_code == 200
    assert len(seen) == 2
    wait_until(lambda: all(one() is None for one in seen))


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as broken:
        monkeypatch.setattr("sys.stderr", broken)
        log("a line")
    log("a closed one")
    monkeypatch.setattr("sys.stderr", None)
    log("none")


def test_a_request_that_the_end_cuts_off_is_503() -> None:
    async def for_ever(*_: object) -> None:
        await asyncio.sleep(3600)

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def cut_off() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        task = asyncio.create_task(Watch(for_ever, Meter([]))(scope, for_ever, send))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())
    assert sent[0]["status"] == 503
    assert b"retry-after" in dict(sent[0]["headers"])
    assert b"ask another one" in sent[1]["body"]


def test_those_who_are_refused_at_once_do_not_shorten_the_wait_that_is_told() -> None:
    meter = Meter(["/a"])
    meter.request("/a", 200, 9.0)
    for _ in range(1000):
        meter.request("/a", 503, 0.001)
    assert meter.mean_seconds("/a") == 9.0
    with pytest.raises(Refusal) as refused:
        Places(Limits(queue=0), lambda: meter.mean_seconds("/a")).enter(None)
    assert refused.value.retry_after == 9


def test_a_port_is_taken_before_the_first_answer_is_given() -> None:
    with open_socket("127.0.0.1", 0) as first, pytest.raises(UserError, match="choose another --port"):
        open_socket("127.0.0.1", first.getsockname()[1])


def test_a_histogram_counts_up_to_all() -> None:
    meter = Meter(["/a"])
    for seconds in (0.001, 0.03, 0.03, 1000.0):
        meter.request("/a", 200, seconds)
    text = meter.text()
    assert 'scaleseg_request_seconds_bucket{route="/a",le="0.005"} 1' in text
    assert 'scaleseg_request_seconds_bucket{route="/a",le="0.05"} 3' in text
    assert 'scaleseg_request_seconds_bucket{route="/a",le="60.0"} 3' in text
    assert 'scaleseg_request_seconds_bucket{route="/a",le="+Inf"} 4' in text


def test_strange_paths_do_not_make_the_metrics_grow() -> None:
    meter = Meter(["/a"])
    meter.request("/b", 404, 0.1)
    before = len(meter.text().splitlines())
    for index in range(1000):
        meter.request(f"/b{index}", 404, 0.1)
    assert len(meter.text().splitlines()) == before


class _Links(HTMLParser):
    """What a page loads or leads to, and whether it has a script."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]
        self.scripts += tag == "script" or any(name.startswith("on") or name == "style" for name, _ in attributes)


def test_docs_is_a_page_of_our_own_that_tells_every_route(client: httpx2.Client) -> None:
    page, document = client.get("/docs"), client.get("/openapi.json").json()
    links = _Links()
    links.feed(page.text)
    assert links.scripts == 0
    assert all(client.get(link).status_code == 200 for link in links.links)
    assert all(link.startswith("/") for link in links.links)
    for path in document["paths"]:
        assert path in page.text


def test_the_documents_models_are_those_that_are_served(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/segment"]["post"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    assert schemas["model"]["enum"] == ["tiny", "most"]
    assert schemas["refine"]["enum"] == ["crf", "domain", "none"]


def test_together_images_are_told_what_they_are_told_alone() -> None:
    sizes = [(40, 57), (40, 57), (64, 60), (41, 57), (33, 64), (20, 31)]
    files = [encoded(photo(*size, seed=index)) for index, size in enumerate(sizes)]
    with serving(MODELS) as (client, app):
        alone = [np.load(io.BytesIO(post(client, file, output="npz").content)) for file in files]
        app.pipeline.batch = 4
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda file: post(client, file, output="npz").content, files * 2))
        batches = metrics(client)
    assert batches['scaleseg_batches_total{model="tiny"}'] < batches['scaleseg_images_total{model="tiny"}']
    for found, one in zip(together, alone * 2, strict=True):
        arrays = np.load(io.BytesIO(found))
        for name in one:
            assert arrays[name] == pytest.approx(one[name], abs=1e-5), name


def test_a_full_queue_says_when_to_come_again() -> None:
    with serving({"tiny": MODELS["tiny"]}, Settings(replace(LIMITS, queue=1))) as (client, app):
        with ThreadPoolExecutor(12) as pool:
            responses = list(pool.map(lambda _: post(client), range(36)))
        statuses = {response.status_code for response in responses}
        assert statuses == {200, 503}
        for response in responses:
            if response.status_code == 503:
                assert int(response.headers["retry-after"]) >= 1
                assert "come again" in refusal(response)
        wait_until(
            lambda: app.places.empty
        )  # a place is kept until the answer is sent, which its reader may know first
        assert post(client).status_code == 200


def test_an_image_that_takes_more_memory_than_is_allowed_is_413(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def too_large(*_: object, **__: object) -> int:
        raise UserError("it needs 9 GB, and --max-memory is 1 MB")

    monkeypatch.setattr("scaleseg.server.pipeline.choose_side", too_large)
    with serving({"tiny": MODELS["tiny"]}, Settings(max_memory=1_000_000)) as (client, _):
        response = post(client)
    assert response.status_code == 413
    assert refusal(response) == "photo.png is 57 x 40 pixels, more than this server has memory for; shrink it"
    assert "--max-memory" in capfd.readouterr().err


def test_an_image_larger_than_memory_allows_is_looked_at_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiles(engine: object, model: object, side: int) -> TorchEngine:
        assert side == 7
        return TorchEngine(MODELS["most"], "float32")

    monkeypatch.setattr("scaleseg.server.pipeline.choose_side", lambda *_, **__: 7)
    monkeypatch.setattr("scaleseg.server.pipeline.Tiled", tiles)
    with serving({"tiny": MODELS["tiny"]}, Settings(max_memory=10**12)) as (client, _):
        image = Image.open(io.BytesIO(post(client).content))
    assert np.array_equal(np.asarray(image), expected("most").labels.numpy())


@pytest.mark.parametrize(("refine", "whole"), [("none", False), ("crf", True), ("domain", True)])
def test_what_a_refinement_needs_counts_as_memory(monkeypatch: pytest.MonkeyPatch, refine: str, whole: bool) -> None:
    def choose(*_: object, whole_scores: bool) -> int:
        asked.append(whole_scores)
        return 10**6

    asked: list[bool] = []
    monkeypatch.setattr("scaleseg.server.pipeline.choose_side", choose)
    with serving({"tiny": MODELS["tiny"]}, Settings(max_memory=10**12)) as (client, _):
        assert post(client, refine=refine).status_code == 200
    assert asked == [whole]


def test_an_answer_that_would_not_fit_beside_the_others_is_503() -> None:
    places = Places(Limits(answers_in_flight=100))
    first, second = places.enter(None), places.enter(None)
    first.answered(90)
    with pytest.raises(Refusal, match="come again"):
        second.answered(20)
    for place in (first, second):
        place.leave()
        place.leave()
    assert places.empty
    assert places.answer_bytes == 0


def test_bodies_are_bounded_together_not_only_one_by_one() -> None:
    settings = Settings(Limits(bytes=100_000, bytes_in_flight=150_000, body_seconds=5.0))
    with serving({"tiny": MODELS["tiny"]}, settings) as (client, app):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 99000\r\n\r\n"
            slow.sendall(head + bytes(98_000))
            wait_until(lambda: app.places.bytes == 98_000)
            response = post(client, PNG + bytes(60_000))
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert app.places.bytes == 98_000
            assert post(client).status_code == 200  # a small one still fits in
        wait_until(lambda: app.places.bytes == 0)


def wait_until(true) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
