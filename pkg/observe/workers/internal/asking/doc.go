// Package asking is about asking workers by remote control: when each should be asked
// what, asking at once for whoever wants to know, and what the answers mean.
package asking
