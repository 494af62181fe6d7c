"""Receive studies from scanners or a PACS by C-STORE into an inbox."""

import ipaddress
import re
import time
from pathlib import Path

_AE_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}")
_SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_POLL_SECONDS = 1.0


def listen(
    inbox: Path,
    *,
    site: str,
    allow: list[str],
    ae_title: str = "ARL",
    host: str = "127.0.0.1",
    port: int = 11112,
    settle_seconds: float = 120,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    tls_client_authority: Path | None = None,
) -> None:
    """Receive studies from scanners or a PACS by C-STORE into an inbox.

    Writes each study to <inbox>/<site>/<study>-<number>, with a completion marker, once no new
    instance has come for `settle_seconds`. Later instances form the next batch of the study.
    Objects are stored as they are sent, under keyed hashes (ARL_HASH_KEY). Runs until it is
    interrupted, and resumes incomplete studies at the next start.

    Args:
        inbox: Folder that `arl watch` polls.
        site: Site of the sender, the folder in the inbox.
        allow: AE titles that may send.
        ae_title: AE title of this service.
        host: Address to listen on.
        port: Port to listen on.
        settle_seconds: Time without a new instance after which a study is complete.
        tls_certificate: Certificate of this service, PEM. The three TLS files go together.
        tls_key: Private key of the certificate, PEM.
        tls_client_authority: Authority that signed the certificates of the senders, PEM.

    Raises:
        ValueError: A name is not valid, only some TLS files are given, or an address other than
            this machine without TLS.
        OSError: The port is taken, or a file cannot be read.

    Writes:
        inbox

    Examples:
        arl listen inbox --site north --allow SCANNER1 SCANNER2
    """
    if not _SITE.fullmatch(site):
        raise ValueError(f"site {site!r}: use lower-case letters, digits and dashes")
    for title in (ae_title, *allow):
        if not _AE_TITLE.fullmatch(title):
            raise ValueError(f"AE title {title!r} has more than 16 letters, digits, '_', '.', '-'")
    files = (tls_certificate, tls_key, tls_client_authority)
    if any(files) and not all(files):
        raise ValueError(
            "give all of --tls-certificate, --tls-key and --tls-client-authority, or none"
        )
    if not any(files) and not ipaddress.ip_address(host).is_loopback:
        raise ValueError(
            f"--host {host} is reachable from the network, and without TLS identifiers would "
            "travel in clear: give the TLS files, or put a TLS proxy before 127.0.0.1"
        )
    # pynetdicom takes 0.5 s to import.
    from arl.ingest.dicom.deidentify import secret_key
    from arl.ingest.network.store_scp import StoreScp, TlsFiles
    from arl.ingest.network.studies import StudyFolders

    tls = None
    if tls_certificate and tls_key and tls_client_authority:
        tls = TlsFiles(tls_certificate, tls_key, tls_client_authority)
    studies = StudyFolders(inbox, site, secret_key())
    # A crash may have left a study half received: it becomes a batch after it settles.
    studies.repair()
    service = StoreScp(studies, ae_title, allow, tls)
    server = service.start(host, port)
    print(f"{ae_title} listens on {host}:{port} for {', '.join(allow)}", flush=True)
    try:
        while True:
            # DICOM has no end of a study: only silence says that it is complete.
            time.sleep(_POLL_SECONDS)
            for batch in service.release_settled(settle_seconds):
                print(f"{batch}: {sum(1 for _ in batch.iterdir())} instances", flush=True)
    finally:
        server.shutdown()
