package queue

import "errors"

// MissingRightError is an error whose cause is that a broker does not permit something to
// the user who asks. Its text says what to grant.
type MissingRightError struct{ Err error }

// Error is the text of Err.
func (e *MissingRightError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *MissingRightError) Unwrap() error { return e.Err }

// IsMissingRight reports whether an error, or one that it wraps, is a
// MissingRightError.
func IsMissingRight(err error) bool {
	_, is := errors.AsType[*MissingRightError](err)
	return is
}
