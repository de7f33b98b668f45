package v1alpha1

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/api/strictyaml"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// DocumentError is one mistake in one document of a brokers file.
type DocumentError struct {
	// Document counts the documents that hold anything, from 1.
	Document int
	// Broker is the broker's namespace and name as far as they are known.
	Broker queue.BrokerRef
	// Line is the line of the file, from 1, or 0 where Err names it.
	Line int
	// Err says what is wrong; it is a *field.Error unless the document is no
	// YAML.
	Err error
}

// Error names the document, the broker, the line, the field and the mistake.
func (e *DocumentError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "document %d", e.Document)
	if e.Broker.Name != "" {
		fmt.Fprintf(&s, " (%s %s)", Kind, e.Broker)
	}
	if e.Line > 0 {
		fmt.Fprintf(&s, ", line %d", e.Line)
	}
	return s.String() + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *DocumentError) Unwrap() error { return e.Err }

// DecodeBrokers reads a brokers file: YAML or JSON documents separated by lines
// of "---", each a CeleryBroker. It is strict: an unknown field or one given
// twice is an error. The brokers are returned in the order of the file, with
// their defaults, in the namespace "default" where they name none, and valid as a
// whole (see Validate, FromFile).
//
// The error joins a *DocumentError for each mistake of each document, in the
// order of the file; with an error, no broker is returned. A file without any
// document is an error. No error shows a broker's URL.
func DecodeBrokers(data []byte) ([]CeleryBroker, error) {
	documents, err := strictyaml.Parse(data)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return nil, fmt.Errorf("the file holds no %s: it needs one document at least, with apiVersion %s and kind %s", Kind, APIVersion, Kind)
	}
	brokers := make([]CeleryBroker, len(documents))
	numbers := map[queue.BrokerRef]int{}
	var errs []error
	for i, d := range documents {
		for _, e := range decodeBroker(d, &brokers[i], numbers) {
			errs = append(errs, e)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return brokers, nil
}

// decodeBroker reads one document into b. Numbers holds the brokers of the
// documents before it, to which b is added.
func decodeBroker(d strictyaml.Document, b *CeleryBroker, numbers map[queue.BrokerRef]int) []*DocumentError {
	if d.Err != nil {
		return []*DocumentError{{Document: d.Number, Err: d.Err}}
	}
	errs, lines := decodeHead(d)
	if len(errs) == 0 {
		errs, lines = d.Decode(b)
		if b.Namespace == "" {
			b.Namespace = DefaultNamespace
		}
		SetDefaults(b)
		errs = append(errs, unrelated(Validate(b, FromFile), errs)...)
		errs = append(errs, repeated(b.Ref(), d.Number, numbers)...)
	}
	return documentErrors(d.Number, b, errs, lines)
}

// decodeHead checks that a document is a CeleryBroker, so that anything else gets
// one error and not one for each of its fields.
func decodeHead(d strictyaml.Document) (field.ErrorList, strictyaml.Lines) {
	var h struct{ metav1.TypeMeta }
	errs, lines := d.Decode(&h)
	switch {
	case len(errs) > 0 && errs[0].Field == "document":
		return errs[:1], lines
	case h.Kind == "List" || h.Kind == Kind+"List":
		return field.ErrorList{field.Forbidden(field.NewPath("kind"), "lists are not supported: write the items as documents separated by lines of ---")}, lines
	case h.APIVersion == "" && h.Kind == "", h.APIVersion == APIVersion && h.Kind == Kind:
		// Without either, the errors about the fields say more.
		return nil, lines
	}
	return validateHead(h.APIVersion, h.Kind), lines
}

// repeated refuses a broker that an earlier document holds, and records it.
func repeated(ref queue.BrokerRef, number int, numbers map[queue.BrokerRef]int) field.ErrorList {
	if ref.Name == "" {
		return nil
	}
	if first, found := numbers[ref]; found {
		err := field.Duplicate(field.NewPath("metadata", "name"), ref.Name)
		err.Detail = fmt.Sprintf("document %d has a broker of this name in namespace %q already", first, ref.Namespace)
		return field.ErrorList{err}
	}
	numbers[ref] = number
	return nil
}

// unrelated returns those of errs that no mistake in decoding explains: a value
// that could not be decoded is not missing as well.
func unrelated(errs, decoding field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		return slices.ContainsFunc(decoding, func(d *field.Error) bool {
			related := holds(d.Field, e.Field) || holds(e.Field, d.Field)
			return related && d.Type != field.ErrorTypeDuplicate
		})
	})
}

// holds tells whether the field at path is the one at outer or lies within it.
func holds(outer, path string) bool {
	rest, found := strings.CutPrefix(path, outer)
	return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// documentErrors puts document, broker and line to errs, in the order of lines.
func documentErrors(number int, b *CeleryBroker, errs field.ErrorList, lines strictyaml.Lines) []*DocumentError {
	result := make([]*DocumentError, 0, len(errs))
	for _, e := range errs {
		result = append(result, &DocumentError{Document: number, Broker: b.Ref(), Line: lines.Of(e.Field), Err: e})
	}
	slices.SortStableFunc(result, func(a, b *DocumentError) int { return a.Line - b.Line })
	return result
}
