"""A Kubeflow Pipelines server: start a run there, or keep its recurring runs as they are written down."""

import hashlib
import json
import os
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

from pipelines.cluster import settings

EXPERIMENT = "arl"
_OURS = "Kept by `arl schedule`: "  # begins the description of a recurring run that may be replaced
_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"  # where Kubeflow projects a pod's token


@dataclass(frozen=True)
class Address:
    """Where the API is and who we are there, from the environment variables that the kfp command reads too."""

    endpoint: str
    namespace: str | None
    token: str | None
    token_file: str | None
    ca: str | None

    @classmethod
    def from_environment(cls) -> "Address":
        """Raises ValueError where no endpoint is given."""
        endpoint = os.environ.get("KFP_ENDPOINT", "").rstrip("/")
        if not endpoint:
            raise ValueError(
                "KFP_ENDPOINT is not set: it is the address of the Kubeflow Pipelines API, e.g. http://HOST:8888"
            )
        file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _TOKEN_FILE)
        return cls(
            endpoint,
            os.environ.get("KFP_NAMESPACE"),
            os.environ.get("KFP_EXISTING_TOKEN"),
            file if Path(file).is_file() else None,
            os.environ.get("KFP_SSL_CA_CERT"),
        )


@contextmanager
def connected(address: Address) -> Iterator[kfp.Client]:
    """A client of the API, whose failures are ValueErrors that say what to do."""
    warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
    at = f"KFP_ENDPOINT={address.endpoint}"
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
        raise ValueError(f"no Kubeflow Pipelines API answers at {at}: {error}") from error
    except kfp_server_api.ApiException as error:
        raise ValueError(f"{at} {_refusal(error)}") from error


def _refusal(error: kfp_server_api.ApiException) -> str:
    if error.status == 401:
        return "does not know who asks (401): the token is missing or has expired; give a fresh KFP_EXISTING_TOKEN"
    if error.status == 403:
        return "forbids it (403): this token has no right to run pipelines there; see KFP_NAMESPACE and k8s/base/rbac.yaml"
    return f"refused it: {error.status} {error.reason} {(error.body or '').strip()[:500]}".rstrip()


def submit(
    pipeline: dsl.graph_component.GraphComponent, arguments: dict[str, Any], address: Address
) -> str:
    """Compile the pipeline and start a run of it; returns the run's page.

    Raises:
        ValueError: the server does not answer or does not accept it.
    """
    with connected(address) as client, _compiled(pipeline) as package:
        run = client.create_run_from_pipeline_package(
            package,
            arguments=arguments,
            experiment_name=EXPERIMENT,
            namespace=address.namespace,
            service_account=_service_account(),
        )
    return f"{address.endpoint}/#/runs/details/{run.run_id}"


@dataclass(frozen=True)
class Recurring:
    """A pipeline that the server starts by itself; `cron` has Kubeflow's six fields, seconds first."""

    name: str
    pipeline: dsl.graph_component.GraphComponent
    arguments: dict[str, Any]
    cron: str
    enabled: bool


def keep_recurring(wanted: list[Recurring], address: Address) -> list[str]:
    """Make the server's recurring runs the wanted ones; returns a line for each that tells what was done.

    Kubeflow cannot change a recurring run, so one that differs is replaced: the new one is made
    before the old one goes, that no failure leaves none. Recurring runs that `arl schedule` has not
    made are not touched.

    Raises:
        ValueError: the server does not answer or does not accept it.
    """
    with connected(address) as client:
        experiment = client.create_experiment(EXPERIMENT, namespace=address.namespace).experiment_id
        present = [
            run for run in _listed(client, experiment) if (run.description or "").startswith(_OURS)
        ]
        told = [_keep(client, experiment, run, present) for run in wanted]
        names = {run.name for run in wanted}
        for old in present:
            if old.display_name not in names:
                client.delete_recurring_run(old.recurring_run_id)
                told.append(f"{old.display_name}: removed")
    return told


def _keep(client: kfp.Client, experiment: str, wanted: Recurring, present: list[Any]) -> str:
    old = [run for run in present if run.display_name == wanted.name]
    with _compiled(wanted.pipeline) as package:
        digest = _fingerprint(wanted, Path(package))
        if [run.description for run in old] == [_OURS + digest]:
            return f"{wanted.name}: is as wanted ({wanted.cron})"
        client.create_recurring_run(
            experiment,
            wanted.name,
            description=_OURS + digest,
            cron_expression=wanted.cron,
            max_concurrency=1,
            no_catchup=True,  # after an outage one run is enough
            params=wanted.arguments,
            pipeline_package_path=package,
            enabled=wanted.enabled,
            service_account=_service_account(),
        )
    for run in old:
        client.delete_recurring_run(run.recurring_run_id)
    return f"{wanted.name}: {'replaced' if old else 'made'} ({wanted.cron})"


def _fingerprint(wanted: Recurring, package: Path) -> str:
    told = [
        wanted.cron,
        wanted.enabled,
        wanted.arguments,
        _service_account(),
        package.read_text(encoding="utf-8"),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _listed(client: kfp.Client, experiment: str) -> Iterator[Any]:
    token = ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=100, experiment_id=experiment)
        yield from page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return


def _service_account() -> str | None:
    cluster = settings()
    return cluster.service_account if cluster else None


@contextmanager
def _compiled(pipeline: dsl.graph_component.GraphComponent) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "pipeline.yaml")
        compiler.Compiler().compile(pipeline, package)
        yield package
