"""A Kubeflow Pipelines server: upload versions of a pipeline, start runs, keep recurring runs."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp import compiler, dsl
from kfp.client import ServiceAccountTokenVolumeCredentials, token_credentials_base

from components.version import code_version
from pipelines.address import Address
from pipelines.settings import settings

Pipeline = dsl.graph_component.GraphComponent

EXPERIMENT = "arl"
# begins the description of a recurring run that `arl schedule` may replace
_OURS = "Kept by `arl schedule`: "
_PAGE_SIZE = 100
# Kubeflow's MySQL keeps 255 characters of a run's name and description (2.17.0,
# client_manager.go:478). It refuses longer ones only after the workflow has started
# (resource_manager.go:735 and 765), which then runs without a page.
_MAX_CHARACTERS = 255


@dataclass(frozen=True)
class Run:
    """A run to start: its pipeline, arguments, name and description."""

    pipeline: Pipeline
    arguments: dict[str, Any]
    name: str
    description: str


@dataclass(frozen=True)
class Recurring:
    """A run that the server starts by itself; `cron` has Kubeflow's six fields, seconds first."""

    name: str
    pipeline: Pipeline
    arguments: dict[str, Any]
    cron: str
    enabled: bool


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server."""

    pipeline: str
    name: str
    pipeline_id: str
    version_id: str
    # whether this call uploaded it
    is_new: bool


@contextmanager
def connected(address: Address) -> Iterator[kfp.Client]:
    """A client of the API; failures become ValueErrors with a remedy."""
    warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
    endpoint = f"KFP_ENDPOINT={address.endpoint}"
    # A projected token of a pod is renewed in its file, so the client reads the file each time.
    credentials: token_credentials_base.TokenCredentialsBase | None = None
    if address.token is None and address.token_file:
        credentials = ServiceAccountTokenVolumeCredentials(address.token_file)
    try:
        yield kfp.Client(
            host=address.endpoint,
            existing_token=address.token,
            credentials=credentials,
            ssl_ca_cert=address.ca,
            **({"namespace": address.namespace} if address.namespace else {}),
        )
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise ValueError(f"no Kubeflow Pipelines API answers at {endpoint}: {error}") from error
    except kfp_server_api.ApiException as error:
        raise ValueError(f"{endpoint} {_refusal(error)}") from error


def _refusal(error: kfp_server_api.ApiException) -> str:
    if error.status == 401:
        return (
            "does not accept the token (401): it is missing or has expired; "
            "set KFP_EXISTING_TOKEN to a new one"
        )
    if error.status == 403:
        return (
            "forbids it (403): the token's account lacks the ClusterRole kubeflow-pipelines-edit "
            "in the namespace of KFP_NAMESPACE"
        )
    return f"refused it: {error.status} {error.reason} {(error.body or '').strip()[:500]}".rstrip()


def upload(pipeline: Pipeline, address: Address) -> Version:
    """Upload a pipeline as a version, unless the server has this version.

    Raises:
        ValueError: the server does not answer or refuses.
    """
    with connected(address) as client:
        return _upload(client, pipeline, address.namespace)


def submit(run: Run, address: Address) -> str:
    """Upload the pipeline's version and start a run of it; returns the run's page.

    Raises:
        ValueError: the server does not answer or refuses.
    """
    with connected(address) as client:
        version = _upload(client, run.pipeline, address.namespace)
        experiment = client.create_experiment(EXPERIMENT, namespace=address.namespace)
        # kfp.Client.run_pipeline takes no description
        created = client._run_api.run_service_create_run(
            run=kfp_server_api.V2beta1Run(
                experiment_id=experiment.experiment_id,
                display_name=_shortened(run.name),
                description=_shortened(run.description),
                pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
                    pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
                ),
                runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=run.arguments),
                service_account=_service_account(),
            )
        )
    return address.page_of_run(created.run_id)


def _shortened(text: str) -> str:
    """The text, cut at the length that Kubeflow can store; the run's parameters are whole."""
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 4] + " ..."


def keep_recurring(wanted: list[Recurring], address: Address) -> list[str]:
    """Make the server's recurring runs the wanted ones; returns one line about each.

    Kubeflow cannot change a recurring run, so a new one replaces it. The new one is created before
    the old one is deleted, so that no failure leaves none. The delete orphans the runs in progress,
    which Kubeflow would otherwise terminate (kubeflow/pipelines#12573). Recurring runs of others
    stay.

    Raises:
        ValueError: the server does not answer or refuses.
    """
    with connected(address) as client:
        experiment = client.create_experiment(EXPERIMENT, namespace=address.namespace).experiment_id
        present = [
            run
            for run in _recurring_runs(client, experiment)
            if (run.description or "").startswith(_OURS)
        ]
        lines = [_keep(client, experiment, run, present, address.namespace) for run in wanted]
        names = {run.name for run in wanted}
        for old in present:
            if old.display_name not in names:
                _delete_recurring(client, old.recurring_run_id)
                lines.append(f"{old.display_name}: removed")
    return lines


def _keep(
    client: kfp.Client,
    experiment: str,
    wanted: Recurring,
    present: list[Any],
    namespace: str | None,
) -> str:
    version = _upload(client, wanted.pipeline, namespace)
    digest = _fingerprint(wanted, version)
    old = [run for run in present if run.display_name == wanted.name]
    if [run.description for run in old] == [_OURS + digest]:
        return f"{wanted.name}: unchanged ({wanted.cron})"
    client.create_recurring_run(
        experiment,
        wanted.name,
        description=_OURS + digest,
        cron_expression=wanted.cron,
        max_concurrency=1,
        # after an outage one run is enough
        no_catchup=True,
        params=wanted.arguments,
        pipeline_id=version.pipeline_id,
        version_id=version.version_id,
        enabled=wanted.enabled,
        service_account=_service_account(),
    )
    for run in old:
        _delete_recurring(client, run.recurring_run_id)
    return f"{wanted.name}: {'replaced' if old else 'created'} ({wanted.cron})"


def _delete_recurring(client: kfp.Client, identifier: str) -> None:
    # kfp.Client does not pass the policy, which Kubeflow Pipelines knows since 2.16
    client._recurring_run_api.recurring_run_service_delete_recurring_run(
        recurring_run_id=identifier, propagation_policy="ORPHAN"
    )


def _fingerprint(wanted: Recurring, version: Version) -> str:
    # all that a recurring run is made of; Kubeflow stores no hash of it
    parts = [wanted.cron, wanted.enabled, wanted.arguments, _service_account(), version.name]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _recurring_runs(client: kfp.Client, experiment: str) -> Iterator[Any]:
    token = ""
    while True:
        page = client.list_recurring_runs(
            page_token=token, page_size=_PAGE_SIZE, experiment_id=experiment
        )
        yield from page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return


def _upload(client: kfp.Client, pipeline: Pipeline, namespace: str | None) -> Version:
    with compiled(pipeline) as package:
        content = Path(package).read_bytes()
        name = f"{code_version()}-{hashlib.sha256(content).hexdigest()[:12]}"
        pipeline_id = _pipeline_id(client, pipeline, namespace)
        for version in _versions(client, pipeline_id):
            if version.display_name == name:
                identifier = version.pipeline_version_id
                return Version(pipeline.name, name, pipeline_id, identifier, False)
        uploaded = client.upload_pipeline_version(
            package,
            name,
            pipeline_id=pipeline_id,
            description=f"arl code {code_version()}; {pipeline.description or ''}".rstrip("; "),
        )
    return Version(pipeline.name, name, pipeline_id, uploaded.pipeline_version_id, True)


def _pipeline_id(client: kfp.Client, pipeline: Pipeline, namespace: str | None) -> str:
    api = client._pipelines_api
    # The names of pipelines are unique in a namespace; display names are not.
    try:
        record = api.pipeline_service_get_pipeline_by_name(
            pipeline.name, **({"namespace": namespace} if namespace else {})
        )
    except kfp_server_api.ApiException as error:
        if error.status != 404:
            raise
        record = api.pipeline_service_create_pipeline(
            pipeline=kfp_server_api.V2beta1Pipeline(
                name=pipeline.name,
                display_name=pipeline.name,
                description=pipeline.description,
                namespace=namespace,
            )
        )
    return str(record.pipeline_id)


def _versions(client: kfp.Client, pipeline_id: str) -> Iterator[Any]:
    token = ""
    while True:
        page = client.list_pipeline_versions(
            pipeline_id, page_token=token, page_size=_PAGE_SIZE, sort_by="created_at desc"
        )
        yield from page.pipeline_versions or []
        token = page.next_page_token or ""
        if not token:
            return


def _service_account() -> str | None:
    cluster = settings()
    return cluster.service_account if cluster else None


@contextmanager
def compiled(pipeline: Pipeline) -> Iterator[str]:
    """The path of the compiled pipeline, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "pipeline.yaml")
        compiler.Compiler().compile(pipeline, package)
        yield package
