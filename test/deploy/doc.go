// Package deploy proves what the folder deploy offers: that a cluster takes the
// manifests, that dashboard, alerts and pages speak of metrics that exist, and that alerts
// fire when they should.
package deploy
