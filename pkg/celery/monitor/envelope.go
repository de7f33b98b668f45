package monitor

import (
	"encoding/base64"
	"encoding/json"
	"errors"
)

// delivered is a message that has left the envelope in which kombu's virtual
// transports put it.
type delivered struct {
	contentType, contentEncoding, ticket string
	body                                 []byte
}

// openEnvelope opens the envelope of kombu's virtual transports
// (kombu/transport/virtual/base.py, prepare_message). A compressed body is an
// error: it may be a thousand times larger than it looks.
func openEnvelope(message []byte) (delivered, error) {
	var e struct {
		Body        string `json:"body"`
		ContentType string `json:"content-type"`
		Encoding    string `json:"content-encoding"`
		Headers     struct {
			Compression json.RawMessage `json:"compression"`
			Ticket      json.RawMessage `json:"ticket"`
		} `json:"headers"`
		Properties struct {
			BodyEncoding string `json:"body_encoding"`
		} `json:"properties"`
	}
	if json.Unmarshal(message, &e) != nil {
		return delivered{}, errors.New("its envelope is not the one that kombu writes")
	}
	if c := e.Headers.Compression; c != nil && string(c) != "null" {
		return delivered{}, errors.New("it is compressed")
	}
	var ticket string
	_ = json.Unmarshal(e.Headers.Ticket, &ticket) // none if it is no text
	m := delivered{contentType: e.ContentType, contentEncoding: e.Encoding, ticket: ticket, body: []byte(e.Body)}
	if e.Properties.BodyEncoding == "base64" {
		var err error
		if m.body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return delivered{}, errors.New("its body is not base64")
		}
	}
	return m, nil
}
