// Package target reads from HorizontalPodAutoscalers what celery-hpa needs of them:
// what they scale, by which metrics of ours, between which bounds, and what their
// annotations ask for. Of and Target.Wanted, the size that an HPA would compute, are
// pure; Watcher keeps the targets of some namespaces up to date.
package target
