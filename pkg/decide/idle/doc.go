// Package idle decides when a fleet of workers goes to zero, and when and to which
// size it comes back. It is pure: what is known comes in with the time, what is to be
// done goes out with a reason. It does no I/O, reads no clock and logs nothing.
//
// Decide is asked again and again, of one target at a time. Of what it has seen it
// keeps no more than a State. Going down takes an unbroken window in which everything
// was known and nothing was left to do, and then two looks (Confirm) that asked the
// broker and the workers afresh; coming back takes one message.
package idle
