// Package zeroscaler takes fleets of workers to zero and back, for the HPAs that ask
// for it by annotation. What is to be done decides package idle; here it is gathered
// what that needs to know, and done what it says: one write to the scale subresource,
// against the resourceVersion that was looked at.
//
// Each target has a Machine of its own, so that none waits for another. One replica
// of celery-hpa puts to sleep, the one that leads; every replica wakes.
package zeroscaler
