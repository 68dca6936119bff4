"""A certificate for localhost, made for one test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """PEM files: what clients trust, and what the server shows."""

    authority: Path
    chain: Path
    key: Path


def for_localhost(folder: Path) -> Certificate:
    """A fresh authority and a certificate of its for localhost, written into the folder."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificate(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.authority))
    for position, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(made.chain), append=position > 0)
    issued.private_key_pem.write_to_path(str(made.key))
    return made
