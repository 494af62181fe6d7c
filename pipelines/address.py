"""The Kubeflow Pipelines API that KFP_ENDPOINT names, and the token for it. Imports no kfp."""

import base64
import binascii
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

# where Kubeflow projects the token of a pod
_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"


@dataclass(frozen=True)
class Address:
    """Endpoint, namespace and token, from the environment variables of the kfp command."""

    endpoint: str
    namespace: str | None
    token: str | None
    token_file: str | None
    ca: str | None

    @classmethod
    def from_environment(cls) -> "Address":
        """Read KFP_ENDPOINT, KFP_NAMESPACE, KFP_EXISTING_TOKEN and KFP_SSL_CA_CERT.

        Raises:
            ValueError: there is no endpoint, or the token has expired.
        """
        endpoint = os.environ.get("KFP_ENDPOINT", "").rstrip("/")
        if not endpoint:
            raise ValueError(
                "KFP_ENDPOINT is not set: it is the address of the Kubeflow Pipelines API, "
                "e.g. http://HOST:8888, or https://HOST/pipeline behind Kubeflow's gateway"
            )
        token = os.environ.get("KFP_EXISTING_TOKEN")
        _check_expiry(token)
        file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _TOKEN_FILE)
        return cls(
            endpoint,
            os.environ.get("KFP_NAMESPACE"),
            token,
            file if Path(file).is_file() else None,
            os.environ.get("KFP_SSL_CA_CERT"),
        )

    def bearer(self) -> str | None:
        """The token to send, if any."""
        if self.token or not self.token_file:
            return self.token
        return Path(self.token_file).read_text(encoding="utf-8").strip()

    def page_of_run(self, run_id: str) -> str:
        """The address of a run's page.

        KFP_UI_ENDPOINT is the address of the user interface where it differs from the API's, as for
        a port-forward to port 8888.
        """
        site = os.environ.get("KFP_UI_ENDPOINT", self.endpoint).rstrip("/")
        return f"{site}/#/runs/details/{run_id}"


def _check_expiry(token: str | None) -> None:
    """Read the expiry of a JSON Web Token; other tokens are left to the server."""
    try:
        payload = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expiry = float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return
    # An expired token gives 401 on some gateways and a login page on others.
    if expiry < time.time():
        ago = (time.time() - expiry) / 60
        raise ValueError(
            f"the token in KFP_EXISTING_TOKEN expired {ago:.0f} minutes ago: create another one, "
            "e.g. kubectl -n NAMESPACE create token default-editor "
            "--audience=pipelines.kubeflow.org"
        )
