#!/usr/bin/env bash
# Makes the certificate that celery-hpa shows to the API server, and tells the API server
# to trust it: the Secret celery-hpa-serving-cert, the caBundle of the APIService and,
# where 50-webhook.yaml is applied, those of the webhooks. Run it after "kubectl apply -f
# deploy/manifests", and again before the certificate ends, after a year unless DAYS says
# otherwise; celery-hpa takes a new certificate over without a restart. Needs openssl, and
# kubectl (or KUBECTL).
set -euo pipefail

kubectl=${KUBECTL:-kubectl}
days=${DAYS:-365}
namespace=celery-hpa
name=celery-hpa.$namespace.svc
api_service=v1beta1.external.metrics.k8s.io

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# An authority for this one certificate, whose key nobody keeps.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" \
  -keyout ca.key -out ca.crt -subj "/CN=celery-hpa" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
  -keyout tls.key -out tls.csr -subj "/CN=$name" 2>/dev/null
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -out tls.crt \
  -extfile <(printf '%s\n' "subjectAltName=DNS:$name" extendedKeyUsage=serverAuth) 2>/dev/null

# While both change, the API server must trust the old certificate and the new
# one: first the trust in both, then the new certificate. What is trusted no
# longer goes with the next renewal.
trusted() { "$kubectl" get apiservice "$api_service" -o 'jsonpath={.spec.caBundle}' | base64 -d; }
{ cat ca.crt && trusted | awk '/BEGIN/ {n++} n == 1'; } >bundle.crt
bundle=$(base64 -w 0 bundle.crt)
"$kubectl" patch apiservice "$api_service" --type merge \
  --patch "{\"spec\": {\"caBundle\": \"$bundle\"}}"
webhooks=$("$kubectl" get validatingwebhookconfiguration celery-hpa --ignore-not-found \
  -o 'jsonpath={.webhooks[*].name}')
for webhook in $webhooks; do
  # The strategic patch finds the webhook by its name and leaves the rest of it alone.
  "$kubectl" patch validatingwebhookconfiguration celery-hpa --type strategic \
    --patch "{\"webhooks\": [{\"name\": \"$webhook\", \"clientConfig\": {\"caBundle\": \"$bundle\"}}]}"
done
"$kubectl" create secret tls celery-hpa-serving-cert --namespace "$namespace" \
  --cert tls.crt --key tls.key --dry-run=client -o yaml | "$kubectl" apply -f -
