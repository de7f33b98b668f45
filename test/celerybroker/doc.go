// Package celerybroker has no code of its own. Its tests give CeleryBrokers to a real API
// server, beside the program as a process with the rights of the manifests, and look at
// what a platform team would see.
package celerybroker
