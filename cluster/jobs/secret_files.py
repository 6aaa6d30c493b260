"""Files that look like secrets: by name, by content, or because they hold a secret of this command."""

import re
from collections.abc import Iterable
from pathlib import Path

from objgan.errors import InputError

_NAMES = re.compile(
    r"\.env(\..*)?|.*\.env|\.envrc|\.netrc|_netrc|\.pgpass|\.my\.cnf|\.git-credentials|\.npmrc|\.pypirc|\.htpasswd"
    r"|\.dockercfg|\.dockerconfigjson|\.s3cfg|\.boto|\.vault-token|.*kubeconfig.*|id_(rsa|dsa|ecdsa|ed25519)(_sk)?"
    r"|.*\.(key|p12|pfx|p8|jks|keystore|kdbx|ppk|ovpn|tfstate|tfvars|kubeconfig|asc|gpg)",
    re.IGNORECASE,
)
_FOLDERS = {".ssh", ".aws", ".kube", ".gnupg", ".docker", ".azure", ".gcloud", ".ray"}
_EXAMPLES = re.compile(r".*\.(example|sample|template|dist)", re.IGNORECASE)
_WORDS = {
    "token", "tokens", "secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential",
    "credentials", "apikey", "apikeys", "accesskey", "accesskeys", "privatekey",
}  # fmt: skip
_PROGRAMS = {
    ".py", ".pyi", ".md", ".rst", ".sh", ".c", ".h", ".cpp", ".rs", ".go", ".js", ".ts", ".html", ".css", ".ipynb",
}  # fmt: skip
_CONTENT: dict[str, re.Pattern[bytes]] = {
    "a private key": re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----\s*(\\n)?\s*[A-Za-z0-9+/:=-]{16}"),
    "a PuTTY key": re.compile(rb"PuTTY-User-Key-File-\d"),
    "an AWS access key": re.compile(rb"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "an AWS secret key": re.compile(rb"(?i)aws_secret_access_key[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}"),
    "a token of GitHub": re.compile(rb"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50})"),
    "a token of GitLab": re.compile(rb"\bglpat-[A-Za-z0-9_-]{20}"),
    "a token of Hugging Face": re.compile(rb"\bhf_[A-Za-z0-9]{30}"),
    "a token of Slack": re.compile(rb"\bxox[abprs]-[A-Za-z0-9-]{20}"),
    "an API key of Google": re.compile(rb"\bAIza[A-Za-z0-9_-]{35}"),
    "an API key": re.compile(rb"\bsk-[A-Za-z0-9_-]{32}"),
    "a JSON web token": re.compile(rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a kubeconfig": re.compile(rb"(?m)^\s*(- )?(client-key-data|client-certificate-data)\s*:"),
    "a .netrc": re.compile(rb"(?m)^machine\s+\S+\s+login\s+\S+\s+password\s+\S+"),
}
_BARE = re.compile(rb"\s*(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9+/_.=-]{32,512}\s*")
_SHORTEST = 12
"""Fewest characters of a secret that is searched for in files; shorter texts occur everywhere."""


class Secrets:
    """Rejects files that look like secrets.

    known:  secrets of this command, which no file may hold
    insist: accept files that `--include` names one by one
    """

    def __init__(self, known: Iterable[str] = (), insist: bool = False) -> None:
        self._known = [secret.encode() for secret in known if len(secret) >= _SHORTEST]
        self._insist = insist

    def check(self, file: Path, checkout: Path, content: bytes, named: bool = False) -> None:
        """Check that a file may be shown to everybody who reaches the cluster.

        named: the user named this file itself

        Raises:
            InputError: it looks like a secret.
        """
        if named and self._insist:
            return
        why = self._why(file, checkout, content)
        if why is None:
            return
        name = file.relative_to(checkout)
        raise InputError(
            f"{name} {why}, and every node of the cluster would get it: move it out of the checkout"
            f"{', or do not name it' if named else ' (git rm --cached, if git tracks it)'}; --include {name} "
            f"--expose-secrets ships it anyway"
        )

    def _why(self, file: Path, checkout: Path, content: bytes) -> str | None:
        if any(secret in content for secret in self._known):
            return "holds the cluster's token or a secret of this environment"
        for path in (file.relative_to(checkout), file.resolve().relative_to(checkout.resolve())):
            if name_looks_secret(path):
                return "has the name of a secret"
        return looks_like(content)


def name_looks_secret(path: Path) -> bool:
    """Whether a path within a checkout has the name of a secret."""
    if _FOLDERS & {part.lower() for part in path.parts[:-1]}:
        return True
    if _EXAMPLES.fullmatch(path.name):
        return False
    if _NAMES.fullmatch(path.name):
        return True
    words = set(re.split(r"[^a-z0-9]+", path.name.lower()))
    joined = re.sub(r"[^a-z0-9]", "", path.stem.lower())
    return bool(words & _WORDS or joined in _WORDS) and path.suffix.lower() not in _PROGRAMS


def looks_like(content: bytes) -> str | None:
    """The kind of secret that a file's content looks like, in words; None: no secret."""
    if len(content) <= 1024 and _BARE.fullmatch(content):
        return "holds nothing but a token"
    return next((f"holds what looks like {what}" for what, sign in _CONTENT.items() if sign.search(content)), None)
