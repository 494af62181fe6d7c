"""Tell errors that pass by themselves from errors that come back.

Kubeflow cannot be relied on for retries: with the manifests of Kubeflow Pipelines 2.17 Argo retries
a pod that vanished and never a step that failed (retryPolicy OnError).
"""

from arl.outages import is_outage

# of S3's error documents
_S3_CODES = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
}
_MODULES = ("urllib3.exceptions", "requests.exceptions", "botocore.exceptions")
# An out-of-memory error comes back with the same batch, so its words are not among these.
_GPU_WORDS = ("CUDA error", "NCCL", "cuDNN error", "CUBLAS_STATUS", "HIP error")


def transient_reason(error: BaseException) -> str | None:
    """Why the error may pass by itself; None where it will come back.

    The causes of an error count too, since storage wraps errors in sentences for users.
    """
    cause: BaseException | None = error
    while cause is not None:
        # the same batch needs the same memory again
        if type(cause).__name__ == "OutOfMemoryError":
            return None
        if _is_transient(cause):
            return f"{type(cause).__name__}: {cause}"
        cause = cause.__cause__
    return None


def _is_transient(error: BaseException) -> bool:
    # by the name of the module, because not every image has these libraries
    if is_outage(error) or type(error).__module__ in _MODULES:
        return True
    if getattr(error, "code", None) in _S3_CODES:
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _GPU_WORDS)
