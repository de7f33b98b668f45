package strictyaml

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Lines tells where in the file the fields of a decoded document stand.
type Lines struct {
	document int
	byPath   map[string]int
}

// Of returns the line, from 1, of the field at path or, where that is absent, of
// the nearest field that holds it.
func (l Lines) Of(path string) int {
	for path != "" {
		if line, found := l.byPath[path]; found {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return l.document
}

// Decode fills into, a pointer to a struct with json tags, and returns every
// mistake: errors of type Duplicate for a field given twice (the first counts),
// Forbidden for an unknown field, TypeInvalid for a value of the wrong type. What
// is not mistaken is decoded all the same, so that it can be validated further.
// An empty value ("tls:") leaves its field as it is. Decode
// must not be called on a document whose Err is set.
func (d Document) Decode(into any) (field.ErrorList, Lines) {
	r := reader{offset: d.offset, lines: Lines{document: d.Line, byPath: map[string]int{}}}
	r.value(d.root, reflect.ValueOf(into).Elem(), nil)
	return r.errs, r.lines
}

// reader walks one document.
type reader struct {
	offset int
	lines  Lines
	errs   field.ErrorList
}

// value decodes n into v.
func (r *reader) value(n *yaml.Node, v reflect.Value, path *field.Path) {
	if _, found := r.lines.byPath[pathString(path)]; !found {
		r.lines.byPath[pathString(path)] = r.offset + n.Line
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.mistyped(path, "anchors and aliases are not supported: write the value out, or put it in quotes if it begins with * or &")
	case isNull(n):
	case v.CanAddr() && v.Addr().Type().Implements(reflect.TypeFor[json.Unmarshaler]()):
		r.leaf(n, v, path)
	case v.Kind() == reflect.Pointer:
		target := reflect.New(v.Type().Elem())
		r.value(n, target.Elem(), path)
		v.Set(target)
	case v.Kind() == reflect.Struct:
		r.mapping(n, v, path)
	case v.Kind() == reflect.Slice:
		r.sequence(n, v, path)
	default:
		r.leaf(n, v, path)
	}
}

// mapping decodes n into the struct v.
func (r *reader) mapping(n *yaml.Node, v reflect.Value, path *field.Path) {
	fields := fieldsOf(v)
	known := strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
	if n.Kind != yaml.MappingNode {
		r.mistyped(path, "must be a mapping with fields of: "+known)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		child := childPath(path, key.Value)
		r.lines.byPath[pathString(child)] = r.offset + key.Line
		target, isKnown := fields[key.Value]
		first, isTwice := seen[key.Value]
		switch {
		case isTwice:
			r.errs = append(r.errs, givenTwice(child, first, r.offset+key.Line))
		case !isKnown:
			r.errs = append(r.errs, field.Forbidden(child, "unknown field: known here are "+known))
		default:
			r.value(value, target, child)
		}
		seen[key.Value] = r.offset + key.Line
	}
}

// sequence decodes n into the slice v.
func (r *reader) sequence(n *yaml.Node, v reflect.Value, path *field.Path) {
	if n.Kind != yaml.SequenceNode {
		r.mistyped(path, "must be a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, element := range n.Content {
		r.value(element, v.Index(i), path.Index(i))
	}
}

// leaf decodes n into a value that has no fields of ours to look into. A string
// takes text alone: a date without quotes would not stay as it was written.
func (r *reader) leaf(n *yaml.Node, v reflect.Value, path *field.Path) {
	isText := n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
	switch {
	case v.Kind() == reflect.String && isText:
		v.SetString(n.Value)
	case v.Kind() == reflect.String || viaJSON(n, v) != nil:
		r.mistyped(path, mustBe(v))
	}
}

// viaJSON decodes n as JSON of the same content would be, for types that know
// how to read themselves from JSON.
func viaJSON(n *yaml.Node, v reflect.Value) error {
	var content any
	if err := n.Decode(&content); err != nil {
		return err
	}
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v.Addr().Interface())
}

// mistyped records that the value at path has the wrong type. The value is left
// out: a URL with its password may stand where a mapping belongs.
func (r *reader) mistyped(path *field.Path, detail string) {
	if path == nil {
		path = field.NewPath("document")
	}
	r.errs = append(r.errs, field.TypeInvalid(path, field.OmitValueType{}, detail))
}

// givenTwice is the error of a field that stands on two lines. The first is the
// one that was decoded.
func givenTwice(path *field.Path, first, second int) *field.Error {
	err := field.Duplicate(path, field.OmitValueType{})
	err.Detail = fmt.Sprintf("the field is given twice: lines %d and %d", first, second)
	return err
}

// mustBe says what a value decoded into v has to look like.
func mustBe(v reflect.Value) string {
	switch v.Interface().(type) {
	case metav1.Duration:
		return "must be a duration such as 500ms, 10s or 2m"
	case metav1.Time:
		return "must be a time such as 2006-01-02T15:04:05Z"
	}
	switch v.Kind() {
	case reflect.String:
		return "must be a string: put it in quotes"
	case reflect.Map:
		return "must be a mapping of names to strings, each name once"
	default:
		return "must be a " + v.Kind().String()
	}
}

// fieldsOf returns the fields of the struct v by their name in JSON, those of
// embedded structs without a name included.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for structField, value := range v.Fields() {
		name, _, _ := strings.Cut(structField.Tag.Get("json"), ",")
		switch {
		case structField.Anonymous && name == "":
			maps.Copy(fields, fieldsOf(value))
		case name != "" && name != "-":
			fields[name] = value
		}
	}
	return fields
}

// plainName matches names of fields that are safe to print: a URL that was
// written in a field's place is not.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)

// childPath is path followed by name, or by a placeholder where name may be
// something else than a field's name.
func childPath(path *field.Path, name string) *field.Path {
	if !plainName.MatchString(name) {
		name = "(no field name)"
	}
	return path.Child(name)
}

// pathString is path.String, and empty for the document itself.
func pathString(path *field.Path) string {
	if path == nil {
		return ""
	}
	return path.String()
}
