#!/usr/bin/env bash
# {{name}}, served by `vitriad serve` on Vertex AI: PROJECT=my-project REGION=europe-west4 REPOSITORY=models ./vertex.sh
#
# Builds the image, pushes it to a repository of Artifact Registry, and deploys it to a new endpoint. Vertex AI says in
# AIP_HTTP_PORT, AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE what is given here, and the server keeps to it.
set -euo pipefail
cd "$(dirname "$0")"
at=(--project="${PROJECT:?the project of Google Cloud}" --region="${REGION:?such as europe-west4}")
image="$REGION-docker.pkg.dev/$PROJECT/${REPOSITORY:?of Artifact Registry}/{{name}}:{{version}}"

docker build --platform=linux/amd64 --tag="$image" .
docker push "$image"
model=$(gcloud ai models upload "${at[@]}" --display-name={{name}} --container-image-uri="$image" \
  --container-ports=8080 --container-health-route=/ready --container-predict-route=/v1/models/{{name}}:predict \
  --format='value(model)')
endpoint=$(gcloud ai endpoints create "${at[@]}" --display-name={{name}} --format='value(name)')
gcloud ai endpoints deploy-model "$endpoint" "${at[@]}" --model="$model" --display-name={{name}} \
  --machine-type=n2-standard-4 --min-replica-count=1 --max-replica-count=4 --traffic-split=0=100
echo "ask it: gcloud ai endpoints predict $endpoint --region=$REGION --project=$PROJECT --json-request=request.json"
