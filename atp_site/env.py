"""Read environment variables.

A wrong value raises `ImproperlyConfigured` with one sentence: which variable, what it must be.
No message contains a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import secrets
import stat
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from atp.errors import MalformedDocument
from atp.wire.text_files import as_utf8

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})
KEY_BYTES = 32  # AES-256, and as much entropy as SHA-256 signing can use
TOKEN_LEAST_CHARS = 16
SECRETS = {  # the file in the data folder of a hub that makes its own secrets, and random bytes
    "ATP_SECRET_KEY": ("secret-key", 48),  # 64 characters; Django's check W009 wants 50
    "ATP_KEY_ENCRYPTION_KEY": ("key-encryption-key", KEY_BYTES),
}

_OWNER_ONLY = 0o600


def env_text(name: str, default: str) -> str:
    """Return the text of `name` without surrounding space; `default` if it is missing or empty."""
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, *, default: bool) -> bool:
    """Return `name` as a boolean: one of `TRUE_WORDS` or `FALSE_WORDS`, in any case."""
    text = env_text(name, "").lower()
    if not text:
        return default
    if text in TRUE_WORDS | FALSE_WORDS:
        return text in TRUE_WORDS
    raise ImproperlyConfigured(f"{name} must be true or false, not {text!r}.")


def env_choice(name: str, default: str, *choices: str) -> str:
    """Return the one of `choices` that `name` holds, in any case."""
    text = env_text(name, default)
    for choice in choices:
        if choice.lower() == text.lower():
            return choice
    named = f"{', '.join(choices[:-1])} or {choices[-1]}"
    raise ImproperlyConfigured(f"{name} must be {named}, not {text!r}.")


def env_int(name: str, default: int, *, least: int, most: int) -> int:
    """Return `name` as a whole number from `least` to `most`."""
    text = env_text(name, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ImproperlyConfigured(
            f"{name} must be a whole number from {least} to {most}, not {text!r}."
        )
    return int(text)


def env_list(name: str, default: list[str]) -> list[str]:
    """Return the parts of a comma-separated list."""
    text = env_text(name, "")
    return [part.strip() for part in text.split(",") if part.strip()] if text else default


def env_secret(name: str) -> str:
    """Return the secret in `name` or in the file that `name`_FILE names; "" if neither is set."""
    given, path = env_text(name, ""), env_text(f"{name}_FILE", "")
    if given and path:
        raise ImproperlyConfigured(f"Set {name} or {name}_FILE, not both.")
    if not path:
        return given
    return _read_secret(Path(path), name=f"{name}_FILE")


def token(name: str) -> str:
    """Return the bearer token in `name` or `name`_FILE, "" if neither is set.

    A token needs `TOKEN_LEAST_CHARS` characters, so that it can't be guessed.
    """
    text = env_secret(name)
    if text and not (len(text) >= TOKEN_LEAST_CHARS and text.isascii() and text.isprintable()):
        raise ImproperlyConfigured(f"{name} must be at least {TOKEN_LEAST_CHARS} ASCII characters.")
    return text


def secret_of_hub(name: str, folder: Path, *, shared: bool) -> str:
    """Return the secret of `name`; make one in `folder` if the hub is a single process.

    With `shared` engines the variable must be set, because all processes need the same secret.
    """
    file, size = SECRETS[name]
    if shared and not env_secret(name):
        raise ImproperlyConfigured(
            f"{name} is not set, and on PostgreSQL or with a broker all nodes and workers need the"
            " same one: make it once with"
            f" `python3 -c 'import secrets; print(secrets.token_urlsafe({size}))'`"
            f" and give it to each as {name}, or in a file named by {name}_FILE."
        )
    return secret_or_made(name, folder / file, size=size)


def keep_secrets(folder: Path) -> None:
    """Set the secrets in `folder` in the environment of this process and its children.

    Secrets that are set already stay. Missing files are made. Call it before settings are loaded,
    for a hub of several processes on one machine.
    """
    for name, (file, size) in SECRETS.items():
        if not env_secret(name):
            secret_or_made(name, folder / file, size=size)
            os.environ[f"{name}_FILE"] = str(folder / file)


def secret_or_made(name: str, path: Path, *, size: int = KEY_BYTES) -> str:
    """Return the secret of `name`; if it is not set, the one in `path`, made if missing."""
    return env_secret(name) or kept_secret(path, size=size)


def kept_secret(path: Path, *, size: int) -> str:
    """Return the secret in the file `path`; make one of `size` random bytes if it is missing."""
    if not path.exists():
        _make_secret(path, size)
    return _read_secret(path, name=str(path))


def decode_key(text: str, *, name: str) -> bytes:
    """Return the 32 bytes of a key in base64url, with or without padding.

    `name` is the variable that the error message names.
    """
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ImproperlyConfigured(f"{name} must be {KEY_BYTES} bytes in base64url.")
    return key


def key_or_none(name: str) -> bytes | None:
    """Return the key of 32 bytes in `name` or `name`_FILE; `None` if neither is set."""
    text = env_secret(name)
    return decode_key(text, name=name) if text else None


def data_dir(name: str, default: Path) -> Path:
    """Return the folder that `name` names; make it, readable for its owner only, if missing."""
    path = Path(env_text(name, str(default))).expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"The data folder {path} can't be made: {exc.strerror}. Set {name} to another one."
        ) from exc
    if path.stat().st_mode & stat.S_IWOTH:
        raise ImproperlyConfigured(
            f"Any user of this machine may change files in the data folder {path}, which holds the"
            f" hub's secrets. Run `chmod o-w {path}`, or set {name} to another one."
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ImproperlyConfigured(
            f"The data folder {path} can't be written. Set {name} to another one."
        )
    return path


def existing_file(name: str) -> str:
    """Return the path in `name` of a file that this process can read, or ""."""
    text = env_text(name, "")
    if text and not (os.path.isfile(text) and os.access(text, os.R_OK)):
        raise ImproperlyConfigured(f"{name} must name a file that the hub can read, not {text!r}.")
    return text


def networks(name: str) -> list[str]:
    """Return a list of IP addresses and networks; refuse a network of all addresses."""
    found = env_list(name, [])
    for text in found:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            network = None
        if network is None or network.prefixlen == 0:
            raise ImproperlyConfigured(
                f"{name} must be addresses or networks such as 10.0.0.5,172.16.0.0/12,"
                f" not {text!r}."
            )
    return found


def address(name: str, default: str) -> str:
    """Return an IP address to listen on; 0.0.0.0 and :: mean all addresses of this machine."""
    text = env_text(name, default)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} must be an address such as 127.0.0.1 or 0.0.0.0, not {text!r}."
        ) from None


def public_url(name: str, default: str) -> str:
    """Return an http or https URL without a path and without a closing slash."""
    url = env_text(name, default).rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or parts.scheme not in {"http", "https"} or parts.path or parts.query:
        raise ImproperlyConfigured(f"{name} must look like https://hub.example.org, not {url!r}.")
    return url


def _make_secret(path: Path, size: int) -> None:
    """Write a random secret in one step, so that two processes that start together share one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except OSError as exc:  # for root, os.access says that every folder is writable
        raise ImproperlyConfigured(
            f"The data folder {path.parent} can't be written: {exc.strerror}."
            " Set ATP_DATA_DIR to another one."
        ) from exc
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(size) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, it fails if another process was first
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _read_secret(path: Path, *, name: str) -> str:
    try:
        secret = as_utf8(path.read_bytes(), what=str(path)).decode("utf-8").strip()
    except (OSError, MalformedDocument) as exc:
        raise ImproperlyConfigured(
            f"The secret of {name} can't be read from {path}: it must be a text in UTF-8."
        ) from exc
    if not secret:
        raise ImproperlyConfigured(f"The secret file {path} is empty.")
    return secret
