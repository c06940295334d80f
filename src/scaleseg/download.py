"""Models from the Hugging Face Hub: two files by name, into huggingface_hub's own cache, and every failure in one line.

HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and the rest mean what they mean to huggingface_hub, which is imported on
first use. Nothing but the file that is named is ever requested: no pickle, no code, no listing.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scaleseg.errors import UserError

__all__ = ["HubModel", "endpoint", "explained", "find", "parse"]

HUB_ID = re.compile(r"(?!.*(?:--|\.\.))([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?", re.ASCII)
"""`org/name` or `org/name@revision`: one slash before the revision, so `runs/cats/best` and `./cats` are only paths."""


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub at one commit: `folder` is its place in the cache, with `config.json` in it."""

    repo: str
    folder: Path
    token: str | bool | None
    cache_dir: str | Path | None
    is_cached: bool
    """The Hub did not answer, so only the cache may."""

    def fetch(self, filename: str) -> Path:
        """One more file of the same commit; UserError if it is not there or the download breaks off."""
        with explained(self.repo, what=filename):
            # the snapshot's folder is named by its commit, so a push in between cannot mix two versions
            return _download(self.repo, filename, self.folder.name, self.token, self.cache_dir, cached=self.is_cached)


def parse(name: str) -> tuple[str, str | None] | None:
    """(`org/name`, revision or None) of a Hub id; None where a name cannot be one."""
    match = HUB_ID.fullmatch(name)
    return (match[1], match[2]) if match else None


def find(repo: str, revision: str | None, token: str | bool | None, cache_dir: str | Path | None) -> HubModel:
    """Ask the Hub for a model and fetch its `config.json`; where the Hub is silent, what the cache has of it.

    UserError says why there is none. A first request without retries makes a wrong name fail at once.
    """
    silence = None
    try:
        _ask(repo, revision, token)
    except Exception as error:  # requests, httpx or httpx2, by the version of huggingface_hub
        if not _is_silence(error):
            raise UserError(_reason(error, repo, "config.json", revision)) from error
        silence = error
    try:
        config = _download(repo, "config.json", revision, token, cache_dir, cached=silence is not None)
    except Exception as error:
        raise UserError(_reason(silence or error, repo, "config.json", revision)) from error
    if silence is not None and type(silence).__name__ != "OfflineModeIsEnabled":  # that one is the user's own wish
        logging.getLogger(__name__).warning(
            "%s cannot be reached; taking %s from the cache (commit %.7s)", endpoint(), repo, config.parent.name
        )
    return HubModel(repo, config.parent, token, cache_dir, is_cached=silence is not None)


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or https://huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def explained(repo: str, *, what: str | None = None, revision: str | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub raises into one line that says what to do; `what` is the file that is read, if any."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # requests, httpx or httpx2, and xet's own
        raise UserError(f"{repo}: {_reason(error, repo, what, revision)}") from error


def _ask(repo: str, revision: str | None, token: str | bool | None) -> None:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, "config.json", revision=revision)
    answer = get_hf_file_metadata(url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if answer.commit_hash is None or answer.etag is None:
        raise UserError(f"{endpoint()} does not answer as a Hub does; check HF_ENDPOINT and your proxy")


def _download(
    repo: str,
    filename: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    *,
    cached: bool,
) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(
        hf_hub_download(
            repo, filename, revision=revision, token=token, cache_dir=cache_dir, local_files_only=cached,
            library_name="scaleseg",
        )
    )  # fmt: skip


def _status(error: BaseException) -> int:
    """The HTTP status that an error tells of; 0 without one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else 0


def _is_silence(error: BaseException) -> bool:
    """Whether the Hub gave no answer (offline, unreachable, too slow, too busy), rather than one we do not like."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    if isinstance(error, UserError | ValueError | LocalTokenNotFoundError):
        return False
    return _status(error) == 429 or not 400 <= _status(error) < 500


def _reason(error: BaseException, repo: str, what: str | None, revision: str | None = None) -> str:
    """What went wrong and what to do, in one line, without a token in it."""
    from huggingface_hub import errors

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # "Error while uploading", from what it was
        return _reason(error.__cause__, repo, what, revision)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set and the cache has no copy of {repo}; unset it, or fetch the model once online"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{endpoint()} cannot be reached and the cache has no {what} of {repo}; check the network and try again"
    if what is None and _status(error) in (401, 403):
        return f"{endpoint()} answers {_status(error)}: {_NO_WRITING}"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated; ask for access at {endpoint()}/{repo}, then log in (hf auth login, or set HF_TOKEN)"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{repo} has no revision {revision!r}; give a branch, a tag or a commit of {endpoint()}/{repo}/commits/main"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repo} on the Hub has no {what}; a model of scaleseg is config.json and model.safetensors"
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is no valid Hub id ({_one_line(error)})"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "token is True, and none is stored; log in (hf auth login) or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return _ABSENT.format(repo=repo, endpoint=endpoint())
    return _reason_by_status(error, repo)


_NO_WRITING = "log in with a token that may write there (hf auth login, or set HF_TOKEN), and check the account's name"
_ABSENT = (
    "there is no {repo} at {endpoint}, or it is private; check the name, and log in if it is private "
    "(hf auth login, or set HF_TOKEN)"
)


def _reason_by_status(error: BaseException, repo: str) -> str:
    status, where = _status(error), endpoint()
    if status in (401, 404):
        return _ABSENT.format(repo=repo, endpoint=where)
    if status == 403:
        return f"{where} answers 403: your token does not allow this with {repo}; use one that does (hf auth login)"
    if status == 429:
        return f"{where} answers 429: too many requests; log in (hf auth login) or wait some minutes"
    if status >= 500:
        return f"{where} answers {status} ({_one_line(error)}); try again later"
    if status or (isinstance(error, ValueError) and not isinstance(error, OSError)):
        return f"{where} refuses this: {_one_line(error)}"
    if isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno is not None:
        return f"the cache cannot be used ({error}); make room there, or choose another with HF_HOME"
    return f"{where} cannot be reached or broke off ({_one_line(error)}); check the network and try again"


def _one_line(error: BaseException) -> str:
    """What the error says, without the token: a malformed header is quoted whole."""
    text = " ".join(str(error).split()) or type(error).__name__
    return type(error).__name__ if "bearer" in text.lower() else text[:300]
