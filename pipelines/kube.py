"""The few calls of the Kubernetes API that the checks need, as plain JSON."""

import json
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3 import Retry
from urllib3.exceptions import HTTPError

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS = 10

Object = dict[str, Any]


class UnreachableError(Exception):
    """The Kubernetes API does not answer, or there is no kubeconfig."""


class ForbiddenError(Exception):
    """The account may not do this; the message is Kubernetes' own."""


class Kube:
    """A Kubernetes API, by the kubeconfig or the account of this pod."""

    def __init__(self) -> None:
        """Read the configuration.

        Raises:
            UnreachableError: there is none.
        """
        try:
            config.load_config()
        except (ConfigException, OSError, TypeError) as error:
            raise UnreachableError(f"no kubeconfig: {error}") from error
        configuration = client.Configuration.get_default_copy()
        # urllib3's three retries would make an address that does not answer cost 40 s
        configuration.retries = Retry(1, redirect=0)
        self._api = client.ApiClient(configuration)
        self.host: str = configuration.host

    def current_namespace(self) -> str:
        """The namespace of this pod or of the kubeconfig's context."""
        if _NAMESPACE_FILE.is_file():
            return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        _, context = config.list_kube_config_contexts()
        return str(context["context"].get("namespace", "default"))

    def get(self, path: str) -> Object | None:
        """An object or a list; None where it does not exist.

        Raises:
            ForbiddenError: the account may not read it.
            UnreachableError: the API does not answer.
        """
        return self._call("GET", path, None)

    def items(self, path: str) -> list[Object]:
        """The items of a list; empty where the kind does not exist. Raises as `get`."""
        return list((self.get(path) or {}).get("items", []))

    def post(self, path: str, body: Object) -> Object:
        """Create an object; returns it. Raises as `get`."""
        return self._call("POST", path, body) or {}

    def _call(self, method: str, path: str, body: Object | None) -> Object | None:
        try:
            response = self._api.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                # the typed models of the client refuse fields that they do not know
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=_SECONDS,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            message = _message(error)
            if error.status in (401, 403):
                raise ForbiddenError(message) from error
            raise UnreachableError(f"{method} {path}: {error.status} {message}") from error
        except (HTTPError, OSError) as error:
            raise UnreachableError(f"{self.host} does not answer: {error}") from error
        answer: Object = json.loads(response.data)
        return answer


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return f"{error.status} {error.reason}"
