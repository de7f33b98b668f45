// Package zero proves the parts that take targets to zero and back against a real
// control plane: that a scale is written against what was looked at and never undoes
// what somebody else has written, that one replica leads, and that people are told.
package zero
