package celery

import "strconv"

// Number is a count that somebody else has written, and that may be missing or no
// count at all.
type Number struct {
	// N is meaningless unless Known.
	N     int64
	Known bool
}

// UnmarshalJSON knows whole numbers from zero. Anything else is not known, which
// is no error: of what stands beside it, nothing is lost.
func (n *Number) UnmarshalJSON(text []byte) error {
	value, err := strconv.ParseInt(string(text), 10, 64)
	*n = Number{}
	if err == nil && value >= 0 {
		*n = Number{N: value, Known: true}
	}
	return nil
}

// UpTo is the number, not known if it is larger than a limit.
func (n Number) UpTo(limit int64) Number {
	if n.N > limit {
		return Number{}
	}
	return n
}
