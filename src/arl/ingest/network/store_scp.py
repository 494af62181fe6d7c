"""A DICOM storage service (C-STORE SCP) that writes the studies it receives into an inbox."""

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from arl.ingest.network.studies import StudyFolders

_LOG = logging.getLogger(__name__)
# Status codes of C-STORE (PS3.4, table B.2-1).
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_TRANSFER_SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.5",
]


@dataclass(frozen=True)
class TlsFiles:
    """Certificate and key of the service, and the authority whose clients it accepts."""

    certificate: Path
    key: Path
    client_authority: Path

    def context(self) -> ssl.SSLContext:
        """A context that demands a client certificate of the authority.

        Raises:
            OSError: A file is missing or is no certificate or key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class StoreScp:
    """Accepts associations of the allowed AE titles and stores what they send.

    Objects are written as they come, without decoding.
    """

    def __init__(
        self, studies: StudyFolders, ae_title: str, allowed: Sequence[str], tls: TlsFiles | None
    ) -> None:
        """`allowed`: calling AE titles that may send; others are rejected.

        Raises:
            ValueError: No AE title is allowed, or one is not valid.
        """
        if not allowed:
            raise ValueError("name at least one AE title that may send: --allow SCANNER1")
        self._studies = studies
        self._lock = Lock()
        self._tls = tls
        self._ae = AE(ae_title=ae_title)
        # AE titles are no secret, but they keep a scanner with a wrong address from sending here.
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(allowed)
        self._ae.maximum_associations = 16
        self._ae.network_timeout = 60
        self._ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax, _TRANSFER_SYNTAXES)
        self.num_stored = 0

    def start(self, host: str, port: int) -> ThreadedAssociationServer:
        """Serve in threads until the server's `shutdown`.

        Raises:
            OSError: The port is taken, or a TLS file cannot be read.
        """
        server = self._ae.start_server(
            (host, port),
            block=False,
            ssl_context=None if self._tls is None else self._tls.context(),
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )
        assert isinstance(server, ThreadedAssociationServer)
        return server

    def release_settled(self, settle_seconds: float) -> list[Path]:
        """Turn settled studies into batches; see `StudyFolders.release_settled`."""
        with self._lock:
            return self._studies.release_settled(settle_seconds)

    def _store(self, event: Event) -> int:
        try:
            # Only the study is read; the object is stored with the bytes that were sent.
            study = str(event.dataset.get("StudyInstanceUID", "") or "").strip()
            content = event.encoded_dataset(include_meta=True)
        except Exception:
            # pydicom raises many types on damaged objects; the association must survive.
            _LOG.warning("an object that cannot be parsed was rejected")
            return _CANNOT_UNDERSTAND
        instance = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        try:
            with self._lock:
                self._studies.store(study or instance, instance, content)
                self.num_stored += 1
        except OSError as error:
            _LOG.error("an object could not be written: %s", error.strerror)
            return _OUT_OF_RESOURCES
        return _SUCCESS
