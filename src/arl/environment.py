"""The environment variables that ARL reads. The reference lists them; a test finds the others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One environment variable."""

    name: str
    group: str
    meaning: str
    default: str = ""


_PATHS, _SECRETS, _CLUSTER, _TESTS = "Folders", "Secrets", "Pipelines", "Tests"
_ALERTS = "Alerts of the loop"
_S3, _KFP = "Object stores", "Kubeflow Pipelines"

VARIABLES = (
    Variable("ARL_RUNS", _PATHS, "Folder of training states and TensorBoard logs.", "runs"),
    Variable(
        "ARL_CACHE",
        _PATHS,
        "Folder for local copies of an S3 corpus and of released models.",
        "$XDG_CACHE_HOME/arl, or ~/.cache/arl",
    ),
    Variable("ARL_CACHE_GIB", _PATHS, "Largest size of the local copies of shards, in GiB.", "50"),
    Variable(
        "ARL_HASH_KEY",
        _SECRETS,
        "Key of the hashes that replace patient and study identifiers. DICOM ingest needs it. "
        "`openssl rand -hex 32` makes one. Keep it: the same key gives the same pseudonyms.",
    ),
    Variable("ARL_HASH_KEY_FILE", _SECRETS, "File with that key, in place of ARL_HASH_KEY."),
    Variable("ARL_OLD_HASH_KEY", _SECRETS, "The key that `arl rotate-key` replaces."),
    Variable("ARL_OLD_HASH_KEY_FILE", _SECRETS, "File with it, in place of ARL_OLD_HASH_KEY."),
    Variable("ARL_SIGNING_KEY", _SECRETS, "PEM file of the private key that signs releases."),
    Variable("ARL_VERIFY_KEY", _SECRETS, "PEM file of the public key that verifies releases."),
    Variable(
        "ARL_IMAGE",
        _CLUSTER,
        "Container images of the steps; {target} stands for the image of a step.",
        "arl-{target}:<version>",
    ),
    Variable("ARL_IMAGE_DATA", _CLUSTER, "Image of the data steps, in place of ARL_IMAGE."),
    Variable("ARL_IMAGE_TRAIN", _CLUSTER, "Image of the training steps, in place of ARL_IMAGE."),
    Variable(
        "ARL_IMAGE_MONITOR", _CLUSTER, "Image of the monitoring steps, in place of ARL_IMAGE."
    ),
    Variable(
        "ARL_CODE_VERSION",
        _CLUSTER,
        "Version of the code that a pipeline records.",
        "the file code-version of an image, or the git commit",
    ),
    Variable(
        "ARL_TRANSIENT_FILE",
        _CLUSTER,
        "File that a step writes if it failed for a passing reason. The pipeline sets it.",
    ),
    Variable(
        "ARL_CLUSTER",
        _CLUSTER,
        "File of volumes, GPUs and secrets of the cluster. Empty: none.",
        "pipelines/cluster.yaml",
    ),
    Variable(
        "ARL_LAUNCH",
        _CLUSTER,
        "Processes and nodes of a training step, as JSON. pipelines/cluster.py sets it.",
    ),
    Variable(
        "ARL_ALERT_WEBHOOK", _ALERTS, "Address that gets a POST with one JSON object per event."
    ),
    Variable("ARL_ALERT_EMAIL", _ALERTS, "Recipients of events, separated by commas."),
    Variable("ARL_SMTP", _ALERTS, "Mail server as host:port."),
    Variable(
        "ARL_ALERT_COMMAND", _ALERTS, "Command that gets the JSON object on its standard input."
    ),
    Variable(
        "ARL_HEARTBEAT_URL",
        _ALERTS,
        "Address that gets a GET after every successful poll. A monitor that misses it raises an "
        "alarm.",
    ),
    Variable("ARL_REAL_DATA", _TESTS, "Folder of public datasets. Tests on real data need it."),
    Variable("AWS_ENDPOINT_URL", _S3, "Address of the S3 server.", "https://s3.amazonaws.com"),
    Variable("AWS_ACCESS_KEY_ID", _S3, "Name of the access key."),
    Variable("AWS_SECRET_ACCESS_KEY", _S3, "The access key."),
    Variable("AWS_REGION", _S3, "Region of the buckets."),
    Variable("AWS_CA_BUNDLE", _S3, "Certificates of the server."),
    Variable("KFP_ENDPOINT", _KFP, "Address of the API."),
    Variable("KFP_NAMESPACE", _KFP, "Namespace of the runs."),
    Variable("KFP_EXISTING_TOKEN", _KFP, "Token of the API."),
    Variable("KF_PIPELINES_SA_TOKEN_PATH", _KFP, "File with a token, in a pod."),
    Variable("KFP_SSL_CA_CERT", _KFP, "Certificates of the API."),
)
