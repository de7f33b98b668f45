// Package asking remembers what one worker should be asked by remote control, and when
// it may be.
package asking
