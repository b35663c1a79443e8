"""Certificates for tests of TLS, made with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

FOREVER = "20500101000000Z"
LONG_AGO, THEN = "20200101000000Z", "20200201000000Z"

CONFIG = """\
[ca]
default_ca = own
[own]
dir = {directory}
database = {directory}/index.txt
new_certs_dir = {directory}
rand_serial = yes
default_md = sha256
policy = anything
unique_subject = no
copy_extensions = copy
x509_extensions = leaf
[anything]
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
[req]
prompt = no
distinguished_name = name
[name]
CN = rmqarq tests
"""


class CertificateError(Exception):
    """openssl is not there, or would not do it."""


class Pair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Certificates:
    """An authority of its own in a directory, and what it has signed.

    Example:
        own = Certificates(tmp_path)
        server = own.signed("server", "DNS:localhost,IP:127.0.0.1")
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._config = directory / "openssl.cnf"
        self._config.write_text(CONFIG.format(directory=directory))
        (directory / "index.txt").touch()
        self.authority = self.self_signed("authority", "", authority=True)

    def self_signed(self, name: str, hosts: str, *, authority: bool = False) -> Pair:
        """Make a certificate that only itself vouches for."""
        pair = self._pair(name)
        may_sign = "critical,CA:TRUE" if authority else "critical,CA:FALSE"
        extensions = ["-addext", f"basicConstraints={may_sign}"]
        if authority:
            extensions += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        if hosts:
            extensions += ["-addext", f"subjectAltName={hosts}"]
        self._run("req", "-x509", "-days", "3650", *extensions, *self._new_key(pair))
        return pair

    def signed(self, name: str, hosts: str, *, expired: bool = False) -> Pair:
        """Make a certificate that the authority vouches for.

        Args:
            name: Of the files.
            hosts: Its subject alternative names, such as `DNS:localhost`.
            expired: Whether its time is over.
        """
        pair = self._pair(name)
        request = self._directory / f"{name}.csr"
        names = ["-addext", f"subjectAltName={hosts}"]
        self._run("req", *names, *self._new_key(pair, out=request))
        start, end = (LONG_AGO, THEN) if expired else (LONG_AGO, FOREVER)
        self._run(
            *("ca", "-batch", "-notext", "-startdate", start, "-enddate", end),
            *("-cert", str(self.authority.certificate)),
            *("-keyfile", str(self.authority.key)),
            *("-in", str(request), "-out", str(pair.certificate)),
        )
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")

    def _new_key(self, pair: Pair, out: Path | None = None) -> list[str]:
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subject = ["-subj", f"/CN={pair.key.stem}"]
        return [
            *(*kind, *subject),
            *("-keyout", str(pair.key), "-out", str(out or pair.certificate)),
        ]

    def _run(self, command: str, *arguments: str) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise CertificateError(
                "openssl was not found; on Debian, install it with:"
                " apt-get install openssl"
            )
        done = subprocess.run(
            [program, command, "-config", str(self._config), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CertificateError(f"openssl {command} failed: {done.stderr.strip()}")
