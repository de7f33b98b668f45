package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Document is one YAML document of a file, parsed but not yet decoded.
type Document struct {
	// Number counts the documents of the file that hold anything, from 1.
	Number int
	// Line is where the document begins in the file, from 1.
	Line int
	// Err says why the document is no YAML; nothing can be decoded then. It
	// names the line of the file and quotes no value.
	Err error

	offset int // lines of the file before this document
	root   *yaml.Node
}

// Parse takes the documents of a file apart. Documents are separated by lines
// that begin with "---" or "..."; those that hold nothing but comments are left
// out. A document with a syntax error is returned with its Err set, so that the
// others can still be read. The error of Parse itself means that no document
// could be told from another.
func Parse(data []byte) ([]Document, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8 text: save the file as UTF-8")
	}
	var documents []Document
	for _, c := range split(data) {
		root, err := parseChunk(c)
		if root == nil && err == nil {
			continue
		}
		d := Document{Number: len(documents) + 1, Line: c.offset + 1, Err: err, offset: c.offset, root: root}
		if root != nil {
			d.Line = c.offset + root.Line
		}
		documents = append(documents, d)
	}
	return documents, nil
}

// chunk is the text of one document and the number of lines before it.
type chunk struct {
	text   []byte
	offset int
}

// split cuts data before each line of "---" and after each line of "...". It is
// done here and not by the YAML parser because that cannot go on after a syntax
// error.
func split(data []byte) []chunk {
	var chunks []chunk
	current := chunk{}
	line := 0
	for l := range bytes.Lines(data) {
		line++
		switch {
		case isMarker(l, "---"):
			chunks = append(chunks, current)
			current = chunk{text: l, offset: line - 1}
		case isMarker(l, "..."):
			chunks = append(chunks, current)
			current = chunk{offset: line}
		default:
			current.text = append(current.text, l...)
		}
	}
	return append(chunks, current)
}

// isMarker tells whether line begins with marker as a word of its own.
func isMarker(line []byte, marker string) bool {
	rest, found := bytes.CutPrefix(line, []byte(marker))
	return found && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0])))
}

// parseChunk returns the root of the one document in c, or nil where c is
// empty.
func parseChunk(c chunk) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(c.text))
	var document, next yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntaxError(err, c.offset)
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("from line %d: more than one document: separate them with lines of ---", c.offset+1)
	}
	root := document.Content[0]
	if isNull(root) {
		return nil, nil
	}
	return root, nil
}

// syntaxError rewrites a parser's error: the line counts from the beginning of
// the file, and the name of an unknown anchor, which may be a password that
// begins with "*", is left out.
func syntaxError(err error, offset int) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(text, "anchor") {
		return fmt.Errorf("from line %d: anchors and aliases are not supported: write the value out, or put it in quotes if it begins with * or &", offset+1)
	}
	var line int
	if _, scanErr := fmt.Sscanf(text, "line %d:", &line); scanErr != nil {
		return fmt.Errorf("from line %d: not YAML: %s", offset+1, text)
	}
	_, text, _ = strings.Cut(text, ": ")
	// The parser is sometimes off by one line.
	return fmt.Errorf("near line %d: not YAML: %s", offset+line, text)
}

// isNull tells whether a node is an empty value.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
