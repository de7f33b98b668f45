// Package scale reads and writes the scale of what an HPA scales: the subresource
// "scale", which every kind has that an HPA can scale.
//
// Deployments and StatefulSets are read from memory, where a watch keeps them. Any
// other kind is asked about, at most once a second. A write is one PATCH that names
// the resourceVersion that was looked at, so that nobody else's change is undone: the
// API server compares the two, on built-in kinds as on custom resources, and answers
// 409 if they differ (test/zero proves it).
package scale
