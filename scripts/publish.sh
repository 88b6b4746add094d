#!/usr/bin/env bash
# Publishes the app of a deployment: scripts/publish.sh [--func | --built] RESOURCE_GROUP [DEPLOYMENT]
# DEPLOYMENT is the name that `az deployment group create` gave it, main unless said. Needs: az (signed in), curl, and
# python3 or, with --func, Azure Functions Core Tools. Either way the package is built in Azure and holds the same files;
# with --built it is built here, by Python 3.13, for when Azure takes longer than it allows itself.
set -euo pipefail

way=az
if [[ ${1:-} == --func || ${1:-} == --built ]]; then
  way=${1#--}
  shift
fi
if (($# < 1 || $# > 2)) || [[ $1 == -* ]]; then
  echo "usage: scripts/publish.sh [--func | --built] RESOURCE_GROUP [DEPLOYMENT]" >&2
  exit 2
fi
group=$1
deployment=${2:-main}
cd "$(dirname "$0")/.."

output() { # output NAME: what the deployment says of itself
  az deployment group show --resource-group "$group" --name "$deployment" --query "properties.outputs.$1.value" --output tsv
}

app=$(output appName)
endpoint=$(output endpoint)
if [[ -z $app ]]; then
  echo "The deployment '$deployment' in '$group' names no app: deploy infra/main.bicep first." >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
remote=true
case $way in
  az) python3 -m scripts.package "$work/router.zip" ;;
  built)
    "${PYTHON:-python3.13}" -m scripts.package --built "$work/router.zip"
    remote=false
    ;;
esac

hand_over() {
  if [[ $way == func ]]; then
    func azure functionapp publish "$app" --python --build remote
  else
    az functionapp deployment source config-zip --resource-group "$group" --name "$app" --src "$work/router.zip" --build-remote "$remote"
  fi
}

# In a new deployment the app's role on its storage account takes some minutes to be known everywhere.
for left in {9..0}; do
  hand_over 2>&1 | tee "$work/said" && break
  ((left)) && grep --quiet BlobUploadFailed "$work/said" || exit 1
  echo "The storage account does not know the app's role yet. Again in 30 seconds." >&2
  sleep 30
done

# A new package is served by new instances; the first one takes a while to start.
for _ in {1..30}; do
  status=$(curl --silent --output "$work/health.json" --write-out '%{http_code}' --max-time 30 "$endpoint/health" || true)
  if [[ $status == 200 ]]; then
    echo "$endpoint serves."
    exit 0
  fi
  sleep 5
done
echo "$endpoint/health answers $status:" >&2
cat "$work/health.json" >&2 || true
exit 1
