// Package fleet joins workers with the pods that they run in, and pods with their
// Deployment or StatefulSet: who of a fleet is busy, who is idle, and of whom that
// is not known. It watches the API server and remembers; brokers it does not know.
package fleet
