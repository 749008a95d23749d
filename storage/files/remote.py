"""Files at URLs, through fsspec: their file system, and its errors in words that say what to do."""

from __future__ import annotations

from typing import Any

# Where a path begins with the name of a bucket.
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_EXTRAS = {"s3": "winnow-pool[s3]", "s3a": "winnow-pool[s3]", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for public files FSSPEC_S3_ANON=true",
    "gs": "run `gcloud auth application-default login`; for public files FSSPEC_GS_TOKEN=anon",
    "hf": "set HF_TOKEN, or run `hf auth login`",
}


def is_url(path: str) -> bool:
    """Whether a path is for fsspec rather than the local disk."""
    return "://" in path


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which lists what is there now, and the path on it.

    Raises:
        Exception: whatever fsspec raises; see `reason`.
    """
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    files.invalidate_cache()  # fsspec keeps listings for the life of a process, which may be a daemon
    return files, path


def missing_bucket(url: str) -> str | None:
    """The bucket of a URL, if it names one that is not there; without credentials it seems so too: list files first."""
    if _protocol(url) not in _BUCKETS:
        return None
    files, path = file_system(url)
    bucket = path.partition("/")[0]
    return None if files.exists(bucket) else bucket


def reason(url: str, error: Exception) -> str:
    """Why a file system could not do what it was asked, and what helps."""
    protocol = _protocol(url)
    if isinstance(error, ImportError):
        return f"{error}; pip install '{_EXTRAS[protocol]}'" if protocol in _EXTRAS else str(error)
    # Of these file systems' packages, none need be installed: their errors are known by name.
    unknown_user = type(error).__name__ in ("NoCredentialsError", "GatedRepoError", "HttpError")
    if unknown_user or isinstance(error, PermissionError):
        help_ = _CREDENTIALS.get(protocol.removesuffix("a").replace("gcs", "gs"))
        return f"{error}; {help_}" if help_ else str(error)
    if isinstance(error, FileNotFoundError) and str(error) in url:
        return "there is no such file"
    return str(error) or type(error).__name__


def _protocol(url: str) -> str:
    return url.partition("://")[0]
