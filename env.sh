# `source env.sh`: arl, dvc and the kfp shim on PATH, and no telemetry from what they use.
project=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE:-$0}")" && pwd)
case ":$PATH:" in
*":$project/bin:"*) ;;
*) export PATH="$project/bin:$project/.venv/bin:$PATH" ;;
esac
unset project
export DO_NOT_TRACK=true DVC_NO_ANALYTICS=1 GX_ANALYTICS_ENABLED=false ORT_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_TELEMETRY=1
