// Package deploy proves what the folder deploy offers: that a cluster takes the chart
// and the manifests, by every version of Helm and way of applying, that an upgrade keeps
// what celery-hpa has written and an uninstall leaves nothing, and that dashboard and
// alerts speak of metrics that exist.
package deploy
