"""Check the Kubeflow Pipelines API before anything is sent to it; imports no kfp."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import urllib3

from pipelines.address import Address

Level = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One result of a check: about which object, what, and what to do."""

    level: Level
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level:8s}{self.subject}: {self.message}{remedy}"


def check_endpoint(address: Address) -> tuple[list[Finding], bool]:
    """Check that the Kubeflow Pipelines API answers and accepts the token.

    Returns:
        The findings, and whether the API serves several users.
    """
    subject = f"KFP_ENDPOINT={address.endpoint}"
    token = address.bearer()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    certificates = {"ca_certs": address.ca} if address.ca else {}
    pool = urllib3.PoolManager(timeout=5, retries=False, headers=headers, **certificates)

    def get(path: str) -> tuple[int, Any]:
        answer = pool.request("GET", f"{address.endpoint}/apis/v2beta1/{path}", redirect=False)
        # A gateway without a session answers with a redirect to its login, or with the page itself
        if answer.status in (301, 302, 303, 307) or "html" in answer.headers.get(
            "Content-Type", ""
        ):
            return 302, None
        return answer.status, json.loads(answer.data or b"{}")

    try:
        status, health = get("healthz")
        if status != 200:
            return [_endpoint_refusal(subject, status)], False
        multi_user = bool(health.get("multi_user"))
        findings = list(_check_mode(address, multi_user))
        if any(finding.level == "problem" for finding in findings):
            return findings, multi_user
        # the health check needs no token, so a list shows whether the token is good
        query = f"?namespace={address.namespace}" if address.namespace else ""
        status, _ = get(f"experiments{query}")
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        message = f"no Kubeflow Pipelines API answers: {error}"
        remedy = "check the address, and `kubectl -n kubeflow get deployment ml-pipeline`"
        return [Finding("problem", subject, message, remedy)], False
    if status != 200:
        return [*findings, _endpoint_refusal(subject, status)], multi_user
    return [*findings, Finding("ok", subject, "answers and accepts the token")], multi_user


def _endpoint_refusal(subject: str, status: int) -> Finding:
    if status == 302:
        return Finding(
            "problem",
            subject,
            "answers with a web page or a login",
            "behind Kubeflow's gateway the address is https://HOST/pipeline, "
            "and KFP_EXISTING_TOKEN must be a token for audience pipelines.kubeflow.org",
        )
    if status == 401:
        remedy = "create another one with `kubectl create token` and set KFP_EXISTING_TOKEN"
        return Finding("problem", subject, "does not accept the token (401)", remedy)
    if status == 403:
        return Finding(
            "problem",
            subject,
            "forbids this account to read the namespace (403)",
            "set KFP_NAMESPACE to your profile's namespace, or ask its owner to add you as a "
            "contributor (ClusterRole kubeflow-pipelines-edit)",
        )
    return Finding("problem", subject, f"answers {status}", "see the log of ml-pipeline")


def _check_mode(address: Address, multi_user: bool) -> Iterator[Finding]:
    """Kubeflow Pipelines for one user ignores the namespace; for several users it needs one."""
    if multi_user and not address.namespace:
        message = "is not set, and this Kubeflow serves several users"
        yield Finding("problem", "KFP_NAMESPACE", message, "set it to your profile's namespace")
    if not multi_user and address.namespace not in (None, "kubeflow"):
        yield Finding(
            "problem",
            f"KFP_NAMESPACE={address.namespace}",
            "is ignored by Kubeflow Pipelines for one user, which runs pods in its own namespace",
            "unset it and apply k8s/overlays/standalone",
        )
