"""Fetch new studies of a PACS by DICOMweb (QIDO-RS, WADO-RS) into an inbox."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom import dcmwrite
from requests import RequestException

from arl.files import read_json, write_json
from arl.ingest.dicom.deidentify import keyed_hash
from arl.ingest.network.studies import StudyFolders

PREFIX = "dicomweb+"
_STATE = "fetched.json"
_VERSION = 1
_PAGE = 100
# Attributes of the answers (PS3.18, 10.6).
_MODALITIES = "00080061"
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"


@dataclass(frozen=True)
class Query:
    """Which studies to fetch.

    Attributes:
        url: Root of the DICOMweb service, https://host/dicom-web.
        modality: Modality of the series.
        since: First study date, YYYY-MM-DD; empty for all.
        token_file: File with a bearer token, read at each poll; None for no token.
    """

    url: str
    modality: str = "US"
    since: str = ""
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise ValueError(f"{self.url.split('?')[0]}: DICOMweb needs https")
        if self.since:
            datetime.strptime(self.since, "%Y-%m-%d")


class Fetcher:
    """Fetches the instances that an earlier poll has not fetched.

    The state holds keyed hashes of the fetched instances. It is written after each study, and an
    instance that is in its folder is not fetched again, so an interrupted fetch resumes.
    """

    def __init__(self, query: Query, inbox: Path, site: str, key: bytes) -> None:
        self._query, self._key = query, key
        self._studies = StudyFolders(inbox, site, key)
        self._studies.repair()
        self._state = inbox / _STATE
        self._fetched = self._read_state()

    def poll(self) -> list[Path]:
        """Fetch what is new; return the batches that it forms.

        Raises:
            OSError: The service does not answer, refuses, or the disk is full.
        """
        batches = []
        try:
            client = self._client()
            for study in self._search(client, "studies"):
                modalities = study.get(_MODALITIES, {}).get("Value", [])
                if not modalities or self._query.modality in modalities:
                    batches += self._fetch_study(client, _value(study, _STUDY))
        except RequestException as error:
            # The message of the library holds the address, whose path names the study.
            status = "" if error.response is None else f" (HTTP {error.response.status_code})"
            raise OSError(
                f"DICOMweb at {urlsplit(self._query.url).netloc}: {type(error).__name__}{status}"
            ) from None
        return batches

    def _client(self) -> DICOMwebClient:
        # Tokens expire, so a long-running watch reads the file at each poll.
        headers = {}
        if self._query.token_file is not None:
            token = self._query.token_file.read_text(encoding="ascii").strip()
            headers["Authorization"] = f"Bearer {token}"
        return DICOMwebClient(self._query.url, session=create_session(), headers=headers)

    def _search(
        self, client: DICOMwebClient, level: str, study: str = "", series: str = ""
    ) -> Iterator[dict[str, dict]]:  # type: ignore[type-arg]
        """All answers of a query, page by page."""
        offset = 0
        while True:
            if level == "studies":
                # No filter by ModalitiesInStudy: with it, Orthanc answers every page after the
                # first with nothing, and studies would be lost in silence.
                since = self._query.since.replace("-", "")
                page = client.search_for_studies(
                    limit=_PAGE,
                    offset=offset,
                    fields=["ModalitiesInStudy"],
                    search_filters={"StudyDate": f"{since}-"} if since else None,
                )
            elif level == "series":
                page = client.search_for_series(
                    study,
                    limit=_PAGE,
                    offset=offset,
                    search_filters={"Modality": self._query.modality},
                )
            else:
                page = client.search_for_instances(study, series, limit=_PAGE, offset=offset)
            yield from page
            if len(page) < _PAGE:
                return
            offset += len(page)

    def _fetch_study(self, client: DICOMwebClient, study: str) -> list[Path]:
        new = []
        for series_answer in self._search(client, "series", study):
            series = _value(series_answer, _SERIES)
            for answer in self._search(client, "instances", study, series):
                instance = _value(answer, _INSTANCE)
                code = keyed_hash(self._key, "fetched-instance", instance)
                if code in self._fetched:
                    continue
                if not self._studies.path(study, instance).is_file():
                    self._fetch_instance(client, study, series, instance)
                new.append(code)
        if not new:
            return []
        batch = self._studies.release(self._studies.alias(study))
        # After the release: a kill in between fetches the study again, and loses nothing.
        self._fetched |= set(new)
        write_json(self._state, {"version": _VERSION, "instances": sorted(self._fetched)})
        return [batch]

    def _fetch_instance(
        self, client: DICOMwebClient, study: str, series: str, instance: str
    ) -> None:
        dataset = client.retrieve_instance(
            study, series, instance, media_types=(("application/dicom", "*"),)
        )
        content = BytesIO()
        dcmwrite(content, dataset, enforce_file_format=True)
        self._studies.store(study, instance, content.getvalue())

    def _read_state(self) -> set[str]:
        if not self._state.is_file():
            return set()
        state = read_json(self._state)
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            raise ValueError(f"{self._state} is not a state of version {_VERSION}: delete it")
        return set(state["instances"])


def _value(answer: dict[str, dict], tag: str) -> str:  # type: ignore[type-arg]
    values = answer.get(tag, {}).get("Value", [])
    if not values:
        raise OSError(
            f"the DICOMweb service answers without the attribute {tag}: {json.dumps(tag)}"
        )
    return str(values[0])
