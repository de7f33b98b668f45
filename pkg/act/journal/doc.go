// Package journal says what is decided about targets and done to them, in every place
// where people look: as Events of the HPA (kubectl describe hpa), as metrics, in the
// log, and as a log of the latest decisions of each target, with what was known then
// (kubectl port-forward, and GET /targets).
//
// Events are for what a person may want to know without asking. They are written one
// after the other by Run; nobody waits for them, and those that are too many are lost.
package journal
