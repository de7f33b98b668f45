package certificates

import (
	"errors"
	"log/slog"
)

// sayings logs each failure once, until another one follows, or none.
type sayings struct {
	log  *slog.Logger
	said map[string]string // the failure that was logged last, by subject
}

func newSayings(log *slog.Logger) *sayings { return &sayings{log: log, said: map[string]string{}} }

// failed logs what has happened to a subject, if that is new.
func (s *sayings) failed(subject, message string, err error) {
	if s.isNews(subject, err) {
		s.log.Warn(message, "error", err)
	}
}

// unkept is failed for what trusts us, or is not there to do so.
func (s *sayings) unkept(b *bundle, err error) {
	switch {
	case !s.isNews(b.String(), err):
	case errors.Is(err, errLeft):
		s.log.Info("Nobody is told to trust the serving certificate here", "error", err)
	default:
		s.log.Warn("Cannot tell whom to trust; trying again", "error", err)
	}
}

// isNews tells whether an error is to be logged. The end of one is, at once.
func (s *sayings) isNews(subject string, err error) bool {
	before := s.said[subject]
	if err == nil {
		delete(s.said, subject)
		if before != "" {
			s.log.Info("The serving certificate is kept again", "after", before)
		}
		return false
	}
	s.said[subject] = err.Error()
	return before != err.Error()
}
