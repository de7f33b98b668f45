// Package deploy proves what the folder deploy offers: that a cluster takes the
// manifests, and that the dashboard shows metrics that exist.
package deploy
